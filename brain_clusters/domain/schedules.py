"""Which ``cluster.scaling.schedule`` is in force, and when a cron expression of a blueprint fires. Times are aware."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from brain_clusters.domain import cron
from brain_clusters.domain.specs import ScalingSchedule

# A walk over changes that never lead higher ends here, such as two entries that relieve each other for ever.
_MOST_CHANGES = 100


@dataclass(frozen=True, slots=True)
class Floor:
    """The fewest agents that the schedule asks for; 0 where no entry is in force.

    until: the next time at which that may change, None is never; schedule: the entry that says so, as words.
    """

    min_workers: int = 0
    until: datetime | None = None
    schedule: str | None = None


def floor(schedules: tuple[ScalingSchedule, ...], now: datetime) -> Floor:
    """Return the highest ``min_workers`` of the entries that are in force at ``now``.

    An entry is in force when its last start is later than its last end; at its end it no longer is.
    """
    active = _active(schedules, now)
    until = _earliest(_end(entry, now) if entry in active else _start(entry, now) for entry in schedules)
    highest = max(active, key=lambda entry: entry.min_workers, default=None)
    return Floor(0, until) if highest is None else Floor(highest.min_workers, until, _told(highest))


def next_floor(schedules: tuple[ScalingSchedule, ...], now: datetime) -> tuple[datetime, int] | None:
    """Return (when, how many): the next time after ``now`` at which the floor rises; None: it does not."""
    at, active = now, _active(schedules, now)
    for _ in range(_MOST_CHANGES):
        height = _height(active)
        # What is not higher cannot raise it, and what is lower cannot let it sink.
        rises = [_start(entry, at) for entry in schedules if entry.min_workers > height]
        sinks = [_end(entry, at) for entry in active if entry.min_workers == height]
        changed = _earliest([*rises, *sinks])
        if changed is None:
            return None
        at, active = changed, _active(schedules, changed)
        if _height(active) > height:
            return at, _height(active)
    return None


def next_fire(crons: tuple[str, ...], now: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the first time after ``now`` at which any of ``crons`` fires."""
    return _earliest(cron.next_fire(each, now, timezone) for each in crons)


def fired(crons: tuple[str, ...], after: datetime, until: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the last time after ``after``, up to and including ``until``, at which any of ``crons`` fired."""
    found = (cron.last_fire(each, until, timezone) for each in crons)
    return max((at for at in found if at is not None and at > after), default=None)


def _active(schedules: tuple[ScalingSchedule, ...], now: datetime) -> list[ScalingSchedule]:
    return [entry for entry in schedules if _is_in_force(entry, now)]


def _is_in_force(entry: ScalingSchedule, now: datetime) -> bool:
    started = cron.last_fire(entry.start, now, entry.timezone)
    ended = cron.last_fire(entry.end, now, entry.timezone)
    return started is not None and (ended is None or started > ended)


def _height(active: list[ScalingSchedule]) -> int:
    return max((entry.min_workers for entry in active), default=0)


def _start(entry: ScalingSchedule, now: datetime) -> datetime | None:
    return cron.next_fire(entry.start, now, entry.timezone)


def _end(entry: ScalingSchedule, now: datetime) -> datetime | None:
    return cron.next_fire(entry.end, now, entry.timezone)


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((at for at in times if at is not None), default=None)


def _told(entry: ScalingSchedule) -> str:
    return f"from '{entry.start}' to '{entry.end}' ({entry.timezone})"
