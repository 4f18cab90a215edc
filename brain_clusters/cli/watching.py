"""Showing something again whenever it changes: in place on a terminal, as new lines where there is none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from brain_clusters.cli.kinds import Kind, Row
from brain_clusters.cli.output import as_yaml, row_lines
from brain_clusters.errors import TemporaryError

EVERY_SECONDS = 2.0


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Take Ctrl-C as the orderly end of what goes on without one."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)


def watch_rows(fetch: Callable[[], Any], kind: Kind, output: str) -> None:
    """Show a list, or one thing, again and again. ``fetch`` is asked every EVERY_SECONDS."""
    with until_interrupted():
        if output in ("table", "wide") and sys.stdout.isatty():
            watch_lines(lambda: row_lines(_rows(fetch(), kind), kind, output))
            return
        seen: dict[Any, Row] = {}
        while True:
            rows = _rows(fetch(), kind)
            _print_changes([row for row in rows if seen.get(row[kind.key]) != row], kind, output, first=not seen)
            seen = {row[kind.key]: row for row in rows}
            time.sleep(EVERY_SECONDS)


def watch_lines(read: Callable[[], list[str]], *, done: Callable[[], bool] = lambda: False) -> None:
    """Keep lines on the terminal as they are now, until ``done``. A moment without the API is told below them."""
    from rich.console import Console, Group  # here: rich is slow to import
    from rich.live import Live
    from rich.text import Text

    shown: list[str] = []
    with Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            try:
                shown, trouble = read(), ""
            except TemporaryError as exc:
                trouble = str(exc)
            lines = [Text.from_ansi(line) for line in shown]
            live.update(Group(*lines, *([Text(trouble, style="red")] if trouble else [])), refresh=True)
            if done():
                return
            time.sleep(EVERY_SECONDS)


def _rows(found: Any, kind: Kind) -> list[Row]:
    return list(found[kind.plural]) if kind.plural in found else [found]


def _print_changes(rows: list[Row], kind: Kind, output: str, *, first: bool) -> None:
    if output == "json":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    elif output == "yaml":
        lines = [f"---\n{as_yaml(row)}" for row in rows]
    elif output == "name":
        lines = [str(row[kind.key]) for row in rows]
    else:
        lines = row_lines(rows, kind, output)[0 if first else 1 :] if rows else []
    for line in lines:
        click.echo(line)
    sys.stdout.flush()
