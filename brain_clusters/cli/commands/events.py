"""``events``: who or what did what, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.commands.look import limit_for_reader, tell_rest
from brain_clusters.cli.kinds import EVENTS
from brain_clusters.cli.output import as_yaml, show
from brain_clusters.cli.watching import until_interrupted
from brain_clusters.cli.words import word
from brain_clusters.errors import InvalidInput

_KIND = 24


@click.command()
@click.argument("cluster", required=False, metavar="[CLUSTER]", shell_complete=options.complete_clusters)
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens from now, until Ctrl-C.")
@click.option("--kind", help="Only those of this kind.")
@click.option("--since", metavar="TIME", help="Only those since; ISO 8601 with an offset.")
@click.option("--count", type=click.IntRange(1), help="With -w: end after so many.")
@click.option("--limit", type=click.IntRange(1), help="The newest so many; all into a pipe, 100 on a terminal.")
@options.output
@options.connected
def events(
    api: ApiClient, cluster: str | None, watch: bool, limit: int | None, count: int | None, output: str, **filters: Any
) -> None:
    """Show what happened, newest first; with -w, what happens now, oldest first.

    \b
    brain-clusters events shop -w
    brain-clusters events --kind agent_died -o json
    """
    given = {name: value for name, value in filters.items() if value is not None}
    if not watch:
        found = fetch.listing(api, EVENTS, cluster, given, limit_for_reader(limit))
        show(found, EVENTS, output)
        tell_rest(found, "events")
        return
    with until_interrupted():
        for number, event in enumerate(_live(api, cluster, given), 1):
            click.echo(_line(event, output))
            sys.stdout.flush()
            if number == count:
                return


def _live(api: ApiClient, cluster: str | None, filters: dict[str, Any]) -> Iterator[Any]:
    if "since" in filters:
        raise InvalidInput("-w shows what happens from now on; leave --since out")
    query = {**filters, **({} if cluster is None else {"cluster_id": cluster})}
    for message in api.messages("/api/events/stream" + (f"?{urlencode(query)}" if query else "")):
        if message.get("event") == "reset":
            click.echo("some events in between are not kept any more", err=True)
        else:
            yield json.loads(message["data"])


def _line(event: Any, output: str) -> str:
    if output == "json":
        return json.dumps(event, ensure_ascii=False)
    if output == "yaml":
        return f"---\n{as_yaml(event)}"
    if output == "name":
        return str(event["id"])
    at = word(event.get("at")) if output == "wide" else _clock(event)
    more = f"  {word(event.get('data'))}" if output == "wide" else ""
    kind = click.style(word(event.get("kind")).ljust(_KIND), bold=True)
    return f"{at}  {kind}  {word(event.get('cluster_id'))}  {word(event.get('reason'))}{more}"


def _clock(event: Any) -> str:
    """Return an event's time of the day, where it is read."""
    from datetime import datetime

    return datetime.fromisoformat(event["at"]).astimezone().strftime("%H:%M:%S")
