"""A tree of jobs as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from brain_clusters.cli.table import COLOURS
from brain_clusters.cli.words import plain, word


def tree_lines(node: Any, *, names_only: bool = False, head: str = "", below: str = "") -> Iterator[str]:
    """Yield a line for each job. head, below: what stands before this job, and before those below it."""
    yield str(node["id"]) if names_only else f"{head}{_line(node)}"
    children = node["children"]
    for child in children:
        last = child is children[-1]
        branch, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from tree_lines(child, names_only=names_only, head=below + branch, below=below + rest)


def _line(node: Any) -> str:
    status = click.style(node["status"], fg=COLOURS.get(node["status"]))
    waiting = f", waits for {node['waiting_for']}" if node["waiting_for"] else ""
    error = node["error"]
    told = f": {word(error['type'])}: {word(error['message'])}" if error else ""
    return f"{status} {word(node['group'])} {plain(str(node['id']))}{waiting}{told}"
