"""``status``: what runs, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.output import show_data, show_fields
from brain_clusters.cli.target import Target
from brain_clusters.cli.words import plain, word

_COLOURS = {"critical": "red", "warning": "yellow"}


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it.")
@options.targeted
def status(output: str, **given: Any) -> None:
    """Show what runs, and what needs attention. Exits 1 when the API does not answer or cannot work."""
    target = options.take_target(given)
    with options.client_of(target) as api:
        found = _read(api)
    if output != "table":
        show_data({"api": target.url, **found}, output)
        return
    show_fields(_told(target, found))
    _show_attention(found)


def _read(api: ApiClient) -> dict[str, Any]:
    version, ready, overview = api.get("/version"), api.get("/readyz"), api.get("/api/overview")
    return {"version": version["version"], "redis": ready["redis"], **overview}


def _told(target: Target, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    today = found["today"]
    yield "API", f"{target.url} ({target.named_by}), version {found['version']}"
    yield "Redis", found["redis"]
    yield "clusters", _counts(found["clusters"])
    yield "agents", _counts(found["agents"])
    yield "jobs", f"{found['jobs']['unfinished']} wait or run"
    yield (
        "today",
        f"{today['jobs']['succeeded']} jobs succeeded, {today['jobs']['failed']} failed; {_cost(today, found)}",
    )


def _counts(found: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in found["by_status"].items()) or "none"


def _cost(today: Any, found: Any) -> str:
    if today["amount"] is not None:
        return f"{word(float(today['amount']))} {found['currency']}"
    if not today.get("amount_known"):
        return "no prices are known"
    return f"at least {word(float(today['amount_known']))} {found['currency']}: some groups have no price"


def _show_attention(found: dict[str, Any]) -> None:
    attention = found["attention"]
    if found["redis"] != "up":
        click.secho("! Redis does not answer: commands are accepted and wait, and nothing is scaled", fg="red")
    for item in attention["items"]:
        click.secho(f"! {plain(item['sentence'])} ({plain(item['subject'])})", fg=_COLOURS.get(item["severity"]))
    more = attention["total"] - len(attention["items"])
    if more > 0:
        click.echo(f"and {more} more")
    if not attention["total"] and found["redis"] == "up":
        click.secho("nothing needs attention", fg="green")
