"""``blueprint``: check, render and list blueprints, and print their JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.kinds import BLUEPRINTS
from brain_clusters.cli.output import show, show_data
from brain_clusters.errors import InvalidInput, NotFound


@click.group()
def blueprint() -> None:
    """Check, render and list blueprints; print their JSON Schema. What stores them is 'apply'."""


@blueprint.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check blueprint files and report every fault with its line and column. Exits 2 when there is one."""
    faulty = [file for file in files if not _is_valid(file)]
    if faulty:
        raise click.exceptions.Exit(2)


@blueprint.command()
def schema() -> None:
    """Print the JSON Schema of blueprints, for editors."""
    from brain_clusters.blueprints.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@blueprint.command(name="list")
@options.output
@options.connected
def list_(api: ApiClient, output: str) -> None:
    """List the blueprints that are stored, each in its newest version."""
    show(fetch.listing(api, BLUEPRINTS, None, {}), BLUEPRINTS, output)


@blueprint.command()
@click.argument("name", metavar="FILE|ID[@VERSION]")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How.")
@options.targeted
def render(name: str, output: str, **given: Any) -> None:
    """Show a blueprint as it is understood, with every default filled in: of a FILE, or one that is stored."""
    from brain_clusters.blueprints.validator import load_blueprint, parse_blueprint

    if Path(name).is_file():
        found = load_blueprint(Path(name))
    else:
        with options.client_of(options.take_target(given)) as api:
            stored = fetch.one(api, BLUEPRINTS, name)
        found = parse_blueprint(stored["blueprint_yaml"], source=name)
    show_data(_plain(found), output)


def _plain(value: Any) -> Any:
    """Return a parsed blueprint as JSON-ready data, without what nobody stated and nothing comes of."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _is_valid(file: Path) -> bool:
    """Check one file and say how it stands with it."""
    from brain_clusters.blueprints.validator import format_faults, load_blueprint  # here: YAML and Cerberus are slow

    try:
        found = load_blueprint(file)
    except NotFound as exc:
        click.secho(f"error: {exc}", fg="red", err=True)
        return False
    except InvalidInput as exc:
        click.secho(format_faults(str(file), exc.faults), fg="red", err=True)
        return False
    click.echo(f"{file}: {found.id} {found.version} is valid, with {len(found.groups)} agent groups")
    return True
