"""What charts of one cluster show: its samples in even steps, and its agents by state, counted from their rows.

Samples tell of agents only how many were ready, so how many were starting and draining comes from the times in the
agents' own rows, which is exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Metrics

POINTS = 180
_MOST_AGENTS = 20_000


@dataclass(frozen=True, slots=True)
class Charted:
    """Figures by step. times: seconds since the epoch, at each step's end; None is unknown.

    waiting: jobs; oldest: seconds; rate: jobs a minute; ready, starting, draining: agents.
    """

    times: list[int] = field(default_factory=list)
    waiting: list[float | None] = field(default_factory=list)
    oldest: list[float | None] = field(default_factory=list)
    rate: list[float | None] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    starting: list[int] = field(default_factory=list)
    draining: list[int] = field(default_factory=list)


def charted(session: Session, cluster_id: str, seconds: int, every: float) -> Charted:
    """Return the last ``seconds`` of a cluster in at most POINTS steps. every: seconds between two samples."""
    step = max(int(every), -(-seconds // POINTS), 1)
    end = int(datetime.now(UTC).timestamp()) // step * step + step
    times = list(range(end - seconds // step * step + step, end + step, step))
    samples = _samples(session, cluster_id, datetime.fromtimestamp(times[0] - step, UTC), step)
    found = Charted(times=times)
    for at in times:
        waiting, oldest, rate = samples.get(at, (None, None, None))
        found.waiting.append(waiting)
        found.oldest.append(oldest)
        found.rate.append(rate)
    spans = _spans(session, cluster_id, datetime.fromtimestamp(times[0] - step, UTC))
    now = datetime.now(UTC).timestamp()
    for name, values in (("ready", found.ready), ("starting", found.starting), ("draining", found.draining)):
        values.extend(_counted(spans[name], [min(float(at), now) for at in times]))
    return found


def _samples(
    session: Session, cluster_id: str, since: datetime, step: int
) -> dict[int, tuple[float | None, float | None, float | None]]:
    """Return by step's end what its samples come to: the most that waited, the longest, and the mean rate."""
    end = (func.floor(func.extract("epoch", Metrics.timestamp) / step) + 1) * step
    rows = session.execute(
        select(
            end, func.max(Metrics.queue_length), func.max(Metrics.queue_wait_time), func.avg(Metrics.tasks_per_minute)
        )
        .where(Metrics.cluster_id == cluster_id, Metrics.timestamp >= since)
        .group_by(end)
    )
    return {int(at): (_round(waiting), _round(oldest), _round(rate)) for at, waiting, oldest, rate in rows}


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 1)


Span = tuple[float, float]
_FOREVER = float("inf")


def _spans(session: Session, cluster_id: str, since: datetime) -> dict[str, list[Span]]:
    """Return from when to when agents were in each state, of all that lived at ``since`` or later."""
    rows = session.execute(
        select(Agent.spawned_at, Agent.ready_at, Agent.draining_at, Agent.stopped_at)
        .where(Agent.cluster_id == cluster_id, or_(Agent.stopped_at.is_(None), Agent.stopped_at >= since))
        .order_by(Agent.spawned_at.desc())
        .limit(_MOST_AGENTS)
    )
    found: dict[str, list[Span]] = {"starting": [], "ready": [], "draining": []}
    for spawned, ready, draining, stopped in rows:
        end = _at(stopped)
        leaves = min(_at(draining), end)
        found["starting"].append((_at(spawned), min(_at(ready), leaves)))
        if ready is not None:
            found["ready"].append((_at(ready), leaves))
        if draining is not None:
            found["draining"].append((leaves, end))
    return found


def _at(time: datetime | None) -> float:
    return _FOREVER if time is None else time.timestamp()


def _counted(spans: Sequence[Span], times: Sequence[float]) -> list[int]:
    """Return how many of ``spans`` hold each of ``times``: those begun less those over."""
    begun, over = sorted(begin for begin, _ in spans), sorted(end for _, end in spans)
    return [bisect_right(begun, at) - bisect_right(over, at) for at in times]


def window(name: str, born: datetime) -> int:
    """Return the seconds of a window's name, less where the cluster is younger, but a few minutes at least."""
    age = (datetime.now(UTC) - born).total_seconds()
    return int(min(WINDOWS[name].total_seconds(), max(age + _MARGIN_SECONDS, _LEAST_SECONDS)))


WINDOWS = {
    "15m": timedelta(minutes=15), "1h": timedelta(hours=1), "6h": timedelta(hours=6), "24h": timedelta(days=1),
}  # fmt: skip
_LEAST_SECONDS, _MARGIN_SECONDS = 300.0, 60.0
