"""``doctor``: everything that can be wrong, each with a sentence and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.doctor import Finding, State, failed, machine, servers, service, skipped
from brain_clusters.cli.output import show_data
from brain_clusters.cli.words import plain
from brain_clusters.config import Settings
from brain_clusters.errors import BrainError, ConfigError

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red", State.SKIPPED: "bright_black"}
_ANSWER_SECONDS = 10.0


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it.")
@options.targeted
def doctor(output: str, **given: Any) -> None:
    """Check everything that can be wrong, and say what to do. Exits 1 when something is.

    Looks at this machine, at the servers that are set here or run embedded, and at the API.
    """
    found = []
    for finding in _findings(given):
        found.append(finding)
        if output == "table":
            _show(finding)
    wrong = sum(one.state is State.FAILED for one in found)
    if output != "table":
        show_data({"findings": [asdict(one) for one in found], "failed": wrong}, output)
    else:
        click.echo(f"{wrong} of {len(found)} are wrong" if wrong else "nothing is wrong")
    if wrong:
        raise click.exceptions.Exit(1)


def _findings(given: dict[str, Any]) -> Iterator[Finding]:
    try:
        settings = Settings.from_env()
    except ConfigError as exc:
        yield failed("settings", str(exc), "mend or unset that variable; 'brain-clusters config' lists all of them")
        return
    yield from machine.look(settings)
    yield from servers.look(settings)
    try:
        target = options.take_target(given)
    except BrainError as exc:
        yield skipped("API", str(exc))
        return
    with options.client_of(target, timeout=_ANSWER_SECONDS) as api:
        yield from service.look(api, target)


def _show(finding: Finding) -> None:
    mark = click.style(f"{finding.state:<8}", fg=_COLOURS[finding.state])
    click.echo(f"{mark} {finding.name}: {plain(finding.says)}")
    if finding.do:
        click.echo(f"         -> {plain(finding.do)}")
