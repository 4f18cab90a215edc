"""Tables of plain text: columns as wide as what is in them, and as a terminal is, where there is one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

import click

from brain_clusters.cli.words import cut, width

_GAP = "  "
_LEAST = 8
COLOURS = {
    "active": "green", "succeeded": "green", "idle": "green", "held": "green", "ok": "green", "ready": "green",
    "busy": "cyan", "running": "cyan", "spawning": "cyan", "scaling_up": "cyan", "scaling_down": "cyan",
    "planning": "cyan", "starting": "cyan", "draining": "cyan", "queued": "yellow", "pending": "yellow",
    "paused": "yellow", "unknown": "yellow", "warning": "yellow", "hibernated": "blue", "asleep": "blue",
    "failed": "red", "dead": "red", "error": "red", "ended": "red", "critical": "red", "given_up": "red",
    "firing": "red", "reverted": "red", "destroyed": "bright_black", "stopped": "bright_black",
    "cancelled": "bright_black", "revoked": "bright_black",
}  # fmt: skip


def lines(titles: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None) -> Iterator[str]:
    """Yield the lines of a table, the titles first.

    most: the columns of the terminal, to which the widest cells are cut; None cuts nothing.
    """
    widths = [max(width(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    if most is not None:
        widths = _narrowed(widths, most)
    yield click.style(_line(titles, widths), bold=True)
    for row in rows:
        yield _line(row, widths, coloured=True)


def screen_width() -> int | None:
    """Return how wide the terminal is; None where the output goes elsewhere, and nothing is to be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _line(row: Sequence[str], widths: Sequence[int], *, coloured: bool = False) -> str:
    cells = []
    for place, (cell, size) in enumerate(zip(row, widths, strict=True)):
        text = cut(cell, size)
        shown = click.style(text, fg=COLOURS[cell]) if coloured and cell in COLOURS else text
        cells.append(shown if place == len(row) - 1 else shown + " " * (size - width(text)))
    return _GAP.join(cells).rstrip()


def _narrowed(widths: Sequence[int], most: int) -> list[int]:
    """Return widths that fit. The widest is cut first, and the first column last: it names what others tell of."""
    found = list(widths)
    over = sum(found) + len(_GAP) * (len(found) - 1) - most
    while over > 0 and max(found) > _LEAST:
        rest = max(found[1:], default=0)
        found[found.index(rest, 1) if rest > _LEAST else 0] -= 1
        over -= 1
    return found
