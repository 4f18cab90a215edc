"""``top``: all clusters, live."""

from __future__ import annotations

import sys
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.topview import ORDERS, Reader, View, lines_of
from brain_clusters.cli.watching import EVERY_SECONDS, until_interrupted

_ALL = 10_000


@click.command()
@click.option("--sort", type=click.Choice(list(ORDERS)), default="backlog", show_default=True, help="What comes first.")
@click.option("--once", is_flag=True, help="Print one picture and end; so it is, too, when piped.")
@options.connected
def top(api: ApiClient, sort: str, once: bool) -> None:
    """Watch all clusters that are awake: their backlog, the age of its oldest job, and their agents.

    Keys: q quits, s sorts by the next column, r turns the order round.
    """
    view = View(order=sort)
    if once or not sys.stdout.isatty():
        for line in lines_of(Reader(api).read(_ALL), view, _ALL):
            click.echo(line)
        return
    with until_interrupted():
        _watch(api, view)


def _watch(api: ApiClient, view: View) -> None:
    from rich.console import Console, Group  # here: rich is slow to import
    from rich.live import Live
    from rich.text import Text

    from brain_clusters.cli.keyboard import Keyboard

    console, reader = Console(highlight=False), Reader(api)
    found: Any = None
    with Live(console=console, screen=True, auto_refresh=False) as live, Keyboard() as keyboard:
        while True:
            height = console.size.height
            found = reader.read(height)
            while True:
                shown = lines_of(found, view, height, console.size.width)
                live.update(Group(*(Text.from_ansi(line) for line in shown)), refresh=True)
                key = keyboard.wait(EVERY_SECONDS)
                if key == "q":
                    return
                if key is None:
                    break
                view.press(key)
