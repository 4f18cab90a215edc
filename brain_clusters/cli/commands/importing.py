"""``import``: write blueprints for what is there already."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from brain_clusters.config import Settings
from brain_clusters.errors import InvalidInput, PermanentError

_PATIENCE_SECONDS = 120.0


@click.group()
def import_() -> None:
    """Write a blueprint for an existing application."""


@import_.command()
@click.argument("app", metavar="PACKAGE.MODULE:ATTRIBUTE")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; without it, print it.")
def celery(app: str, output: Path | None) -> None:
    """Write a blueprint for a Celery application: a supervisor, and a group for each of its queues.

    The application is imported as `celery -A` does, with the current directory on the path, and the folders of
    BRAIN_HANDLER_PATH, in another process.
    """
    from brain_clusters.blueprints.importing import blueprint_text
    from brain_clusters.blueprints.validator import parse_blueprint

    module, _, attribute = app.partition(":")
    if not module or not attribute:
        raise InvalidInput(
            f"{app!r} names no application; write it as package.module:attribute, such as proj.celery:app"
        )
    found = _survey(app)
    text = blueprint_text(found, own_broker=_is_own(found["broker"]))
    parse_blueprint(text, source="the blueprint")
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text)
    click.echo(f"{output}: {len(found['queues'])} queues of {app}. Look it over, then store it:")
    click.echo(f"  brain-clusters apply -f {output}")


def _survey(app: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as place:
        argv = [sys.executable, "-P", "-m", "brain_clusters.agent.survey", app, place.name]
        argv += Settings.from_env().handler_path
        try:
            # What the application prints on import must not stand in the blueprint.
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise PermanentError(f"importing {app} took longer than {_PATIENCE_SECONDS:g} s") from exc
        text = place.read()
    told = done.stderr.decode(errors="replace").strip()
    if done.returncode or not text:
        raise PermanentError(told.splitlines()[-1] if told else f"importing {app} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(text)
    return found


def _is_own(broker: str) -> bool:
    """Return whether this installation is set to the application's broker."""
    from brain_clusters.broker.brokers import place_of

    own = Settings.from_env().redis_url
    return own is not None and place_of(own) == place_of(broker)
