"""``agents``: listed, drained and replaced."""

from __future__ import annotations

from collections.abc import Sequence

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import AGENTS
from brain_clusters.cli.output import show, show_data
from brain_clusters.cli.watching import watch_rows
from brain_clusters.errors import Conflict

_IDS = click.argument("ids", nargs=-1, required=True, metavar="AGENT...")


@click.group()
def agents() -> None:
    """List, drain and replace agents. What they wrote is in 'logs'."""


@agents.command(name="list")
@click.argument("cluster", required=False, metavar="[CLUSTER]", shell_complete=options.complete_clusters)
@click.option("--ended", is_flag=True, default=None, help="Those that are gone, too.")
@options.output
@options.watch
@options.connected
def list_(api: ApiClient, cluster: str | None, ended: bool | None, output: str, watch: bool) -> None:
    """List the agents of CLUSTER, or of all clusters."""
    filters = {} if ended is None else {"ended": ended}
    if watch:
        watch_rows(lambda: fetch.listing(api, AGENTS, cluster, filters), AGENTS, output)
        return
    show(fetch.listing(api, AGENTS, cluster, filters), AGENTS, output)


@agents.command()
@_IDS
@options.output
@options.connected
def get(api: ApiClient, ids: tuple[str, ...], output: str) -> None:
    """Show AGENTs."""
    show(fetch.these(api, AGENTS, ids), AGENTS, output)


@agents.command()
@_IDS
@options.dry_run
@options.output
@options.connected
def drain(api: ApiClient, ids: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Let AGENTs finish what they do and leave. New ones come, as many as their groups are to have."""
    _each(api, "drain", ids, dry_run=dry_run, output=output)


@agents.command()
@_IDS
@options.dry_run
@options.output
@options.connected
def replace(api: ApiClient, ids: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Start new agents in place of AGENTs, which finish what they do and leave then."""
    _each(api, "replace", ids, dry_run=dry_run, output=output)


def _each(api: ApiClient, verb: str, ids: Sequence[str], *, dry_run: bool, output: str) -> None:
    for agent in ids:
        if dry_run:
            seen = fetch.one(api, AGENTS, agent)
            if seen["status"] in ("stopped", "failed"):
                raise Conflict(f"cannot {verb} {agent}, which is {seen['status']}")
            click.echo(f"would {verb} {agent}, which is {seen['status']}")
            continue
        answer = api.post(path_of("agents", agent, verb), {})
        if output in ("json", "yaml"):
            show_data(answer, output)
        elif output == "name":
            click.echo(agent)
        else:
            click.echo(f"{agent}: {verb} accepted; it is {answer['status']}")
