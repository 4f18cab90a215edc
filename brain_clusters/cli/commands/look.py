"""``get``: lists of what there is, and single things."""

from __future__ import annotations

import sys
from typing import Any

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.kinds import kind_of
from brain_clusters.cli.output import show
from brain_clusters.cli.watching import watch_rows
from brain_clusters.errors import InvalidInput

# On a terminal, where a person reads; all pages are followed into a pipe.
_ON_A_SCREEN = 100


def limit_for_reader(limit: int | None) -> int | None:
    """Return how many to fetch: ``limit``, else all into a pipe, and a screen's worth on a terminal."""
    return limit if limit is not None or not sys.stdout.isatty() else _ON_A_SCREEN


def tell_rest(found: Any, name: str) -> None:
    """Say how many there are besides those that are shown."""
    total, shown = found.get("total"), len(found.get(name, ()))
    if isinstance(total, int) and total > shown and sys.stderr.isatty():
        click.echo(f"the newest {shown} of {total}; --limit N shows more", err=True)


@click.command()
@options.kind_argument
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=options.complete_clusters)
@options.cluster_option
@click.option("--status", help="Of clusters, or jobs (several by commas).")
@click.option("--type", help="Of clusters.")
@click.option("--tag", help="Of clusters.")
@click.option("--name", help="A part of a cluster's name.")
@click.option("--group", help="Of jobs: the agent group.")
@click.option("--kind", "event_kind", help="Of events.")
@click.option("--since", metavar="TIME", help="Of jobs and events: ISO 8601 with an offset.")
@click.option("--ended", is_flag=True, default=None, help="Agents that are gone, too.")
@click.option("-a", "--all", "past", is_flag=True, help="Destroyed clusters, too.")
@click.option("--limit", type=click.IntRange(1), help="The newest so many; all into a pipe, 100 on a terminal.")
@options.output
@options.watch
@options.connected
def get(
    api: ApiClient, kind: str, ids: tuple[str, ...], cluster: str | None, limit: int | None, output: str, watch: bool,
    event_kind: str | None, past: bool, **filters: Any,
) -> None:  # fmt: skip
    """List clusters, agents, jobs, blueprints, operations, events, hosts or keys; or show those of IDs.

    \b
    brain-clusters get clusters --status active
    brain-clusters get agents -c shop -o wide
    brain-clusters get jobs -c shop --status failed,dead -o json
    brain-clusters get cluster shop -w
    """
    wanted = kind_of(kind)
    given = {name: value for name, value in {**filters, "kind": event_kind}.items() if value is not None}
    if ids and given:
        raise InvalidInput("give IDs or filters, not both")

    def found() -> Any:
        if ids:
            return fetch.these(api, wanted, ids, cluster)
        return fetch.listing(api, wanted, cluster, given, limit_for_reader(limit), past=past or "status" in given)

    if watch:
        watch_rows(found, wanted, output)
        return
    answer = found()
    show(answer, wanted, output)
    if not ids:
        tell_rest(answer, wanted.plural)
