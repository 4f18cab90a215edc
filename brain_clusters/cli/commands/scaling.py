"""``explain`` and ``replay``: why a cluster has the size it has, and what another blueprint would have decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data
from brain_clusters.errors import InvalidInput

_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
    help="How to show it; json and yaml have the API's names.",
)  # fmt: skip
# What comes first in a line for a person.
_MARKS = {
    "scale": "SCALE",
    "hibernate": "SLEEP",
    "reactivate": "WAKE",
    "destroy": "DESTROY",
    "hold": "HOLD",
    "none": "OK",
}
_JOBS = {"ready": "waiting", "reserved": "taken", "running": "running", "held": "not due yet"}


@click.command()
@options.cluster_argument
@_OUTPUT
@options.connected
def explain(api: ApiClient, cluster: str, output: str) -> None:
    """Say what the autoscaler would do with CLUSTER now, why, and which gate holds what."""
    found = api.get(path_of("clusters", cluster, "scaling", "explain"))
    if output != "table":
        show_data(found, output)
        return
    click.echo(f"{_MARKS[found['action']]} {found['cluster_id']} is {found['status']}: {found['reason']}")
    if not found["signals_known"]:
        click.secho("   Redis does not answer: nothing is known of what waits", fg="yellow")
    for name, signals in found["signals"].items():
        click.echo(f"   {_group(name, signals, found)}")
        died = found["died"].get(name)
        if died:
            count, error = died["count"], died["last_error"] or "without a word"
            click.secho(f"      {count} died in the last minute, the last one: {error}", fg="yellow")
    if found["wake_in"] is not None:
        click.echo(f"   starts in {found['wake_in']:.0f} s for what is due then")


def _group(name: str, signals: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    before, after = found["before"].get(name, 0), found["after"].get(name, 0)
    jobs = ", ".join(f"{_number(signals[key])} {word}" for key, word in _JOBS.items())
    age = "" if signals["oldest_age"] is None else f", the oldest for {signals['oldest_age']:.1f} s"
    seconds = signals["service_time"]
    service = "how long one takes is unknown" if seconds is None else f"one takes {_duration(seconds)}"
    size = _size(name, before, after, found)
    return f"{name}: {size}; jobs: {jobs}{age}; {signals['arrival_rate']:.2f}/s come, {service}"


def _size(name: str, before: int, after: int, found: Mapping[str, Any]) -> str:
    """Return how many agents there are, and what is to come of that."""
    if found["status"] == "hibernated" and before == after:
        return "no agents"  # the counts are those that it had
    agents = f"{before} {'agent' if before == 1 else 'agents'}"
    gate = found["held"].get(name)
    if gate:
        would = "" if gate["wanted"] == before else f", {gate['wanted']} without the gate {gate['gate']}"
        return agents + (would or f", held by {gate['gate']}")
    return agents if before == after else f"{agents}, to become {after}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value}"


@click.command()
@options.cluster_argument
@click.option(
    "--blueprint", "file", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The other blueprint."
)
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many.")
@_OUTPUT
@options.connected
def replay(api: ApiClient, cluster: str, file: Path, limit: int, output: str) -> None:
    """Make the stored decisions about CLUSTER again by another blueprint, and show where they differ.

    Each is made from its own stored inputs: what that blueprint would have decided in those moments.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"{file} cannot be read: {exc}") from exc
    _check(file)
    found = api.post(path_of("clusters", cluster, "scaling", "replay"), {"yaml": text, "limit": limit})
    if output != "table":
        show_data(found, output)
        return
    for change in found["changes"]:
        click.echo(f"{change['at']}  #{change['id']}")
        for who in ("recorded", "replayed"):
            told = change[who]
            held = "hold, or else " if told["action"] == "hold" else f"{told['action']} "
            click.echo(f"  {who}: {held}{_counts(told['after'])}: {told['reason']}")
    for name in found["unknown_groups"]:
        click.secho(f"{file} has no group {name!r}: its jobs count for nothing there", fg="yellow")
    click.echo(f"{found['differing']} of {found['decisions']} decisions differ")


def _check(file: Path) -> None:
    """Refuse a blueprint with faults here, where its lines can be named."""
    from brain_clusters.blueprints.validator import load_blueprint  # here: YAML and Cerberus are slow to import

    load_blueprint(file)


def _counts(after: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in after.items())
