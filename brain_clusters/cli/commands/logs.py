"""``logs``: what agents wrote."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import path_of
from brain_clusters.cli.target import Target
from brain_clusters.cli.watching import until_interrupted
from brain_clusters.cli.words import plain
from brain_clusters.errors import BrainError, InvalidInput, NotFound
from brain_clusters.logs import readable

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue")


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@options.cluster_option
@click.option("--group", help="With --cluster: only agents of this group.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on with what they write, until Ctrl-C.")
@click.option("--tail", default=100, show_default=True, type=click.IntRange(0), metavar="N", help="The last N lines.")
@click.option("--count", type=click.IntRange(1), help="With -f: end after so many lines.")
@options.targeted
def logs(
    agents: tuple[str, ...], cluster: str | None, group: str | None, follows: bool, tail: int, count: int | None,
    **given: Any,
) -> None:  # fmt: skip
    """Print what AGENTs wrote, or all agents of a cluster, each line with its agent where there are several.

    \b
    brain-clusters logs -c shop -f
    """
    target = options.take_target(given)
    if bool(agents) == bool(cluster):
        raise InvalidInput("name AGENTs, or a --cluster; 'brain-clusters get agents' lists them")
    with options.client_of(target) as api:
        if cluster:
            rows = api.every(path_of("clusters", cluster, "agents"), "agents")["agents"]
            agents = tuple(row["agent_id"] for row in rows if group in (None, row["group"]))
            if not agents:
                raise NotFound(f"{cluster} has no agent{f' in the group {group}' if group else ''} now")
        if not follows:
            for agent in agents:
                found = api.get(path_of("agents", agent, "logs"), tail=tail)
                for line in found["lines"]:
                    click.echo(_named(agent, line, agents))
                if found["reason"]:
                    click.echo(f"{agent}: {found['reason']}", err=True)
            return
    with until_interrupted():
        _follow(target, agents, tail, count)


def _follow(target: Target, agents: Sequence[str], tail: int, count: int | None) -> None:
    """Print lines as they come, from a connection for each agent."""
    found: queue.SimpleQueue[tuple[str, str | BrainError | None]] = queue.SimpleQueue()
    for agent in agents:
        threading.Thread(target=_read, args=(target, agent, tail, found), daemon=True).start()
    open_ones, printed = len(agents), 0
    while open_ones:
        agent, line = found.get()
        if isinstance(line, BrainError):
            raise line
        if line is None:
            open_ones -= 1
            continue
        click.echo(_named(agent, line, agents))
        sys.stdout.flush()
        printed += 1
        if printed == count:
            return


def _read(target: Target, agent: str, tail: int, found: queue.SimpleQueue[tuple[str, str | BrainError | None]]) -> None:
    try:
        with options.client_of(target) as api:
            for message in api.messages(f"{path_of('agents', agent, 'logs')}?follow=true&tail={tail}"):
                if message.get("event") == "end":
                    break
                found.put((agent, str(json.loads(message["data"])["line"])))
        found.put((agent, None))
    except BrainError as exc:
        found.put((agent, exc))


def _named(agent: str, line: str, agents: Sequence[str]) -> str:
    """Return a line as it is shown: into a pipe as it was written, on a terminal without what could harm that."""
    if sys.stdout.isatty():
        line = "\n".join(plain(part.expandtabs()) for part in readable(line).split("\n"))
    if len(agents) == 1:
        return line
    colour = _COLOURS[agents.index(agent) % len(_COLOURS)]
    return f"{click.style(f'[{agent}]', fg=colour)} {line}"
