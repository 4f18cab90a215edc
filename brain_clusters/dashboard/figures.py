"""Charts as the templates draw them: what ``charts.js`` is given, and the same as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from brain_clusters.services.chart_data import Charted
from brain_clusters.services.tallies import Tally

_TABLE_ROWS = 30


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. tone: the colour's token; unit: behind its figures."""

    name: str
    tone: str
    values: Sequence[float | None]
    unit: str = ""

    @property
    def last(self) -> float | None:
        """Its newest figure that is known."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. kind: line, area or bars; times: seconds since the epoch. least: the lowest top of its scale."""

    id: str
    title: str
    kind: str
    times: Sequence[int]
    lines: Sequence[Line] = field(default=())
    least: float = 4

    @property
    def series(self) -> str:
        """What the script draws, as JSON."""
        told = [
            {"name": one.name, "tone": one.tone, "values": list(one.values), "unit": one.unit} for one in self.lines
        ]
        found = {"kind": self.kind, "x": list(self.times), "series": told, "least": self.least}
        return json.dumps(found, separators=(",", ":"))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(value is None for line in self.lines for value in line.values)

    @property
    def table(self) -> list[tuple[datetime, list[float | None]]]:
        """The same as rows, the newest first, at most _TABLE_ROWS evenly apart."""
        step = max(1, -(-len(self.times) // _TABLE_ROWS))
        places = range(len(self.times) - 1, -1, -step)
        return [
            (datetime.fromtimestamp(self.times[place], UTC), [line.values[place] for line in self.lines])
            for place in places
        ]


def of_cluster(found: Charted) -> list[Chart]:
    """Return the four charts of a cluster."""
    times = found.times
    agents = (
        Line("ready", "ok", found.ready), Line("starting", "move", found.starting),
        Line("draining", "warn", found.draining),
    )  # fmt: skip
    return [
        Chart("chart-waiting", "Jobs waiting", "area", times, (Line("waiting", "accent", found.waiting),)),
        Chart("chart-agents", "Agents", "line", times, agents),
        Chart("chart-oldest", "Oldest job waits", "area", times, (Line("oldest", "warn", found.oldest, "s"),)),
        Chart("chart-rate", "Throughput", "area", times, (Line("jobs", "ok", found.rate, "/min"),)),
    ]


def of_costs(rows: Sequence[tuple[Mapping[str, Any], Tally]], days: Sequence[date], currency: str) -> Chart:
    """Return what each day cost, and what sleeping saved on it. rows: a report by day."""
    by_day = {named["day"]: tally for named, tally in rows}
    times = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) for day in days]
    tallies = [by_day.get(day.isoformat(), Tally()) for day in days]
    cost = [float(one.amount or 0) for one in tallies]
    saved = [float(one.saved or 0) for one in tallies]
    lines = (Line("cost", "accent", cost, currency), Line("saved by sleeping", "sleep", saved, currency))
    return Chart("chart-costs", "By day (UTC)", "bars", times, lines, least=0.01)
