"""Plans as the API makes them, shown to a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.output import show_data
from brain_clusters.cli.progress import wait_for_operation
from brain_clusters.cli.words import plain, word

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "destroy": ("-", "red"), "none": ("=", "bright_black")}


def changes(plan: Any) -> list[Any]:
    """Return what a plan would change."""
    return [one for one in plan.get("changes", ()) if one.get("action") not in ("none", "unchanged")]


def differs(plan: Any) -> bool:
    """Return whether anything is to be changed."""
    return bool(changes(plan))


def show_plan(plan: Any, output: str, *, done: bool = False) -> None:
    """Show a plan, or what was done of one."""
    if output in ("json", "yaml"):
        show_data(plan, output)
    elif output == "name":
        for change in changes(plan):
            click.echo(f"{change.get('kind')}/{change.get('id')}")
    else:
        for line in _lines(plan, done=done):
            click.echo(line)


def _lines(plan: Any, *, done: bool) -> Iterator[str]:
    for change in plan.get("changes", ()):
        sign, colour = _SIGNS.get(str(change.get("action")), ("~", "yellow"))
        yield click.style(plain(f"{sign} {change.get('kind')} {change.get('id')}{_about(change)}"), fg=colour)
        for field in change.get("fields") or ():
            yield f"    {word(field.get('field'))}: {word(field.get('from'))} -> {word(field.get('to'))}"
    found = len(changes(plan))
    yield f"{found} changed" if done else f"{found} to change" if found else "nothing differs"


def _about(change: Any) -> str:
    told = []
    if change.get("agents_replaced"):
        told.append(f"{change['agents_replaced']} agents replaced")
    before, after = change.get("cost_per_hour_before"), change.get("cost_per_hour_after")
    if before is not None or after is not None:
        told.append(f"cost per hour {word(before)} -> {word(after)}")
    return f" ({', '.join(told)})" if told else ""


def show_diff(plan: Any) -> None:
    """Show the texts of a plan's changes, line by line."""
    for change in changes(plan):
        for line in str(change.get("diff") or "").splitlines():
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.secho(plain(line), fg=colour)


def wait_for_changes(api: ApiClient, done: Any, timeout: float) -> None:
    """Wait for the operations and rollouts that applying began."""
    for change in done.get("changes", ()):
        operation = change.get("operation")
        if operation:
            wait_for_operation(api, operation, timeout)
