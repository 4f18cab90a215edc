"""What ``top`` shows: read from the API, sorted, and laid out for a terminal's size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.table import lines
from brain_clusters.cli.words import NOTHING, cut, percent, span, word
from brain_clusters.errors import BrainError, NotFound, TemporaryError

# Asked for one by one: of many thousand clusters most sleep, and lists have pages.
_AWAKE = ("active", "scaling_up", "scaling_down", "spawning", "planning", "destroying")
_EDGE = 4  # lines: the head, the titles, the foot


def _waiting(row: Any) -> float:
    return float((row.get("backlog") or {}).get("waiting") or 0)


ORDERS: dict[str, Callable[[Any], Any]] = {
    "backlog": lambda row: -_waiting(row),
    "oldest": lambda row: -(row.get("oldest") or 0.0),
    "agents": lambda row: -row["current_workers"],
    "load": lambda row: -(row["load_percentage"] or 0),
    "id": lambda row: row["id"],
}


@dataclass(slots=True)
class View:
    """How the user wants it."""

    order: str = "backlog"
    reverse: bool = False

    def press(self, key: str) -> None:
        """Do what a key stands for."""
        if key == "s":
            names = list(ORDERS)
            self.order = names[(names.index(self.order) + 1) % len(names)]
        elif key == "r":
            self.reverse = not self.reverse


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known at one moment. asleep: clusters that are; trouble: why the rest is older than it should be."""

    rows: list[Any]
    asleep: int
    at: float
    trouble: str = ""


class Reader:
    """Reads pictures. Details are asked for as many clusters only as can be shown: each is a request of its own."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._last = Picture([], 0, time.time())

    def read(self, most: int) -> Picture:
        """Return what is there now, or what was there last, with the reason, when the API is away."""
        try:
            awake = [
                row for name in _AWAKE for row in self._api.every("/api/clusters", "clusters", status=name)["clusters"]
            ]
            busiest = sorted(awake, key=lambda one: -(one["load_percentage"] or 0))
            rows = [row for one in busiest[:most] if (row := self._detailed(one)) is not None] + busiest[most:]
            asleep = self._api.get("/api/overview")["clusters"]["by_status"].get("hibernated", 0)
            self._last = Picture(rows, asleep, time.time())
        except TemporaryError as exc:
            return Picture(self._last.rows, self._last.asleep, self._last.at, str(exc))
        return self._last

    def _detailed(self, one: Any) -> Any:
        """Return a cluster with its backlog and the age in seconds of its oldest job; None when it is gone."""
        try:
            found = self._api.get(path_of("clusters", one["id"]))
            return {**found, "oldest": self._oldest(found)}
        except NotFound:
            return None

    def _oldest(self, found: Any) -> float | None:
        if not _waiting(found):
            return None
        try:
            told = self._api.get(path_of("clusters", found["id"], "scaling", "explain"))
        except TemporaryError:
            raise
        except BrainError:
            return None  # it went to sleep just now
        ages = [one["oldest_age"] for one in told["signals"].values() if one.get("oldest_age") is not None]
        return max(ages, default=None)


def lines_of(found: Picture, view: View, height: int, columns: int | None = None) -> Iterator[str]:
    """Yield the lines of a picture, at most ``height``."""
    rows = sorted(found.rows, key=lambda row: (ORDERS[view.order](row), row["id"]), reverse=view.reverse)
    agents = sum(row["current_workers"] for row in rows)
    waiting = sum(_waiting(row) for row in rows)
    clock = datetime.fromtimestamp(found.at).astimezone().strftime("%H:%M:%S")
    head = f"{clock}  {len(rows)} clusters awake, {found.asleep} asleep, {agents} agents, {waiting:.0f} jobs waiting"
    yield cut(head, columns or len(head))
    titles = ["CLUSTER", "STATUS", "AGENTS", "LOAD", "WAITING", "RUNNING", "OLDEST", "DONE", "FAILED"]
    yield from lines(titles, [_cells(row) for row in rows[: max(1, height - _EDGE)]], columns)
    if columns is not None:
        hidden = len(rows) - max(1, height - _EDGE)
        more = f"{hidden} more; " if hidden > 0 else ""
        yield click.style(cut(f"{more}by {view.order}  q quit  s sort  r reverse", columns), dim=True)
    if found.trouble:
        yield click.style(cut(found.trouble, columns or len(found.trouble)), fg="red")


def _cells(row: Any) -> list[str]:
    backlog = row.get("backlog") or {}
    return [
        word(row["id"]), row["status"], f"{row['current_workers']}/{row['target_workers']}",
        percent(row["load_percentage"]), _number(backlog.get("waiting")), _number(backlog.get("running")),
        span(row.get("oldest")), word(row["tasks_completed"]), word(row["tasks_failed"]),
    ]  # fmt: skip


def _number(value: int | None) -> str:
    return NOTHING if value is None else str(value)
