"""``costs``: what was used, what it cost, and what sleeping saved."""

from __future__ import annotations

from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data
from brain_clusters.cli.table import lines, screen_width
from brain_clusters.cli.words import NOTHING, span, word

_FIGURES = (
    "agent_seconds",
    "slot_seconds",
    "jobs",
    "calls",
    "input_tokens",
    "output_tokens",
    "amount",
    "saved",
    "counters",
)


@click.command()
@click.argument("cluster", required=False, metavar="[CLUSTER]", shell_complete=options.complete_clusters)
@click.option(
    "--by", type=click.Choice(["cluster", "blueprint", "tag", "group", "agent", "day"]),
    help="What the rows are; groups of a CLUSTER, else clusters, without it.",
)  # fmt: skip
@click.option("--since", metavar="DAY", help="Such as 2026-01-31; 30 days without it.")
@click.option("--until", metavar="DAY", help="The last day.")
@options.output
@options.connected
def costs(
    api: ApiClient, cluster: str | None, by: str | None, since: str | None, until: str | None, output: str
) -> None:
    """Show what CLUSTER, or all clusters, used and cost, and what sleeping saved."""
    path = "/api/costs" if cluster is None else path_of("clusters", cluster, "costs")
    found = api.get(path, group_by=by, since=since, until=until)
    if output in ("json", "yaml"):
        show_data(found, output)
        return
    names = [name for name in (found["rows"][0] if found["rows"] else {}) if not _is_figure(name)]
    if output == "name":
        for row in found["rows"]:
            click.echo(" ".join(word(row[name]) for name in names))
        return
    titles = [*(name.upper() for name in names), "AGENT TIME", "JOBS", "FAILED", f"COST {found['currency']}", "SAVED"]
    wide = ["CALLS", "TOKENS IN", "TOKENS OUT"] if output == "wide" else []
    rows = [[*(word(row[name]) for name in names), *_cells(row, wide=bool(wide))] for row in found["rows"]]
    rows.append([*(["total", *[""] * (len(names) - 1)] if names else []), *_cells(found["totals"], wide=bool(wide))])
    for line in lines([*titles, *wide], rows, None if wide else screen_width()):
        click.echo(line)
    click.echo(f"from {found['since'][:10]} to {found['until'][:10]}", err=True)


def _is_figure(name: str) -> bool:
    return name in _FIGURES or name == "amount_known"


def _cells(row: Any, *, wide: bool) -> list[str]:
    jobs = row["jobs"]
    told = [span(row["agent_seconds"]["total"]), word(jobs["succeeded"]), word(jobs["failed"]), _money(row["amount"])]
    told.append(_money((row.get("saved") or {}).get("amount")))
    return told + [word(row[name]) for name in ("calls", "input_tokens", "output_tokens")] if wide else told


def _money(amount: Any) -> str:
    return NOTHING if amount is None else f"{float(amount):.4f}".rstrip("0").rstrip(".")
