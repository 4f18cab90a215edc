"""``describe``: all about one thing, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import AGENTS, BLUEPRINTS, CLUSTERS, EVENTS, JOBS, Kind, kind_of
from brain_clusters.cli.output import row_lines, show, show_fields
from brain_clusters.cli.table import COLOURS, lines, screen_width
from brain_clusters.cli.words import NOTHING, age, plain, word

_EVENTS = 10


@click.command()
@options.kind_argument
@click.argument("name", metavar="ID", shell_complete=options.complete_clusters)
@options.output
@options.connected
def describe(api: ApiClient, kind: str, name: str, output: str) -> None:
    """Tell all about one cluster, agent, job, blueprint, operation, event, host or key.

    \b
    brain-clusters describe cluster shop
    brain-clusters describe blueprint shop-v1@1.2
    """
    wanted = kind_of(kind)
    found = fetch.one(api, wanted, name)
    if output != "table":
        show(found, wanted, output)
        return
    _fields(found)
    for title, body in _sections(api, wanted, found):
        if body:
            click.secho(f"\n{title}", bold=True)
            for line in body:
                click.echo(f"  {line}")


def _fields(found: Any) -> None:
    """Print what is stated of a thing; long texts come in sections of their own."""
    show_fields((name, _shown(name, value)) for name, value in found.items() if _is_short(name, value))


def _is_short(name: str, value: Any) -> bool:
    long = ("blueprint_yaml", "versions", "payload", "result", "error", "usage", "group_targets", "standby")
    return name not in long and word(value) != NOTHING


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str) and value in COLOURS:
        return click.style(value, fg=COLOURS[value])
    if isinstance(value, str) and (name.endswith(("_at", "last_active")) or name in ("at", "timestamp")):
        return f"{value} ({age(value)} ago)" if value <= _now() else value
    return word(value)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()


def _sections(api: ApiClient, kind: Kind, found: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield what belongs to it: a title, and lines."""
    if kind is CLUSTERS:
        yield from _of_cluster(api, found)
    elif kind is BLUEPRINTS:
        versions = [(one["version"], age(one["created_at"])) for one in found["versions"]]
        yield "Versions", list(lines(("VERSION", "AGE"), versions, screen_width()))
        yield "Text", [plain(line) for line in found["blueprint_yaml"].splitlines()]
    elif kind is JOBS:
        yield from _of_job(found)
    elif kind is AGENTS and found.get("last_error"):
        yield "Last error", [plain(line) for line in str(found["last_error"]).splitlines()]


def _of_cluster(api: ApiClient, found: Any) -> Iterator[tuple[str, list[str]]]:
    path = path_of("clusters", found["id"])
    yield "Hierarchy", list(_branches(api.get(f"{path}/hierarchy")["hierarchy"], found))
    agents = api.every(f"{path}/agents", "agents")["agents"]
    yield "Agents", row_lines(agents, AGENTS, "table") if agents else []
    alerts = api.get(f"{path}/alerts")["alerts"]
    rows = [(word(one["name"]), word(one["state"]), word(one["condition"]), word(one["value"])) for one in alerts]
    yield "Alerts", list(lines(("ALERT", "STATE", "CONDITION", "VALUE"), rows, screen_width())) if rows else []
    events = api.get(f"{path}/events", limit=_EVENTS)["events"]
    yield "Events, newest first", row_lines(events, EVENTS, "table") if events else []


def _branches(node: Any, found: Any, depth: int = 0) -> Iterator[str]:
    count = (found.get("group_targets") or {}).get(node["group"])
    told = "" if count is None else f", {count} wanted"
    yield f"{'  ' * depth}{word(node['group'])} ({word(node.get('role'))}{told})"
    for below in node["reports"]:
        yield from _branches(below, found, depth + 1)


def _of_job(found: Any) -> Iterator[tuple[str, list[str]]]:
    import json

    for name in ("payload", "result", "usage"):
        if found.get(name) is not None:
            yield name.capitalize(), [plain(line) for line in json.dumps(found[name], indent=2).splitlines()]
    error = found.get("error")
    if error:
        told = f"{error.get('type')}: {error.get('message')}\n{error.get('traceback') or ''}"
        yield "Error", [plain(line) for line in told.splitlines()]
