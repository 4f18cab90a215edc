"""What one look saw, group by group, and what two looks teach. Pure; times in seconds, rates per second.

None means unknown, and unknown is never zero. Symbols, as in docs/architecture.md: R ready, U reserved, A running,
E held for a future ETA, lambda arrivals per second, S service time, T0 start time, c slots per agent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brain_clusters.domain.engines import PROCESS, default_start_seconds


@dataclass(frozen=True, slots=True)
class GroupSignals:
    """What one tick saw of one group.

    ready (R): jobs that wait, those with a future ETA apart; reserved (U): jobs that an agent was given and has not
    begun; running (A): jobs in work; held (E): jobs that wait for their ETA, the next one in ``next_due`` seconds.
    leaving: jobs that draining agents still hold; they need nobody else, so they are not in A.
    due_soon: those of E whose time comes before an agent that starts now is ready.
    oldest_age: how long the oldest of R has waited; running_age: how long those of A have run so far, on average.
    arrival_rate, burst_rate: lambda over the stable and the panic window. agents_ready + agents_starting is the
    capacity that exists; draining ones are none; agents_busy of the ready ones hold work. beats_age: how old the
    oldest beat is; beats_fresh: no ready agent lacks one. usual_start: what a start takes on the group's engine, until
    start_time is measured.
    """

    ready: int | None = None
    running: int | None = None
    reserved: int = 0
    leaving: int = 0
    held: int = 0
    next_due: float | None = None
    agents_ready: int = 0
    agents_starting: int = 0
    agents_draining: int = 0
    agents_busy: int = 0
    beats_fresh: bool = True
    beats_age: float | None = None
    slots: int = 1
    oldest_age: float | None = None
    running_age: float | None = None
    due_soon: int = 0
    arrival_rate: float = 0.0
    burst_rate: float = 0.0
    service_time: float | None = None
    start_time: float | None = None
    usual_start: float = default_start_seconds(PROCESS)
    cpu_percent: float | None = None

    @property
    def backlog(self) -> int | None:
        """R + U + A, or None while that is unknown."""
        return None if self.ready is None or self.running is None else self.ready + self.reserved + self.running

    @property
    def busy_agents(self) -> int:
        """The agents that hold work, as far as they were told apart; no fewer than ceil((A + U) / c)."""
        return max(self.agents_busy, math.ceil(((self.running or 0) + self.reserved) / self.slots))

    @property
    def capacity(self) -> int:
        """Agents that work or are about to."""
        return self.agents_ready + self.agents_starting

    @property
    def load_percent(self) -> float | None:
        """100 * (A + U + R) / (ready agents * c), or None while that cannot be said."""
        if self.backlog is None:
            return None
        if self.agents_ready == 0:
            return 100.0 if self.backlog else 0.0
        return 100.0 * self.backlog / (self.agents_ready * self.slots)


def total(signals: Mapping[str, GroupSignals]) -> GroupSignals:
    """Return the signals of a cluster as if it were one group: sums of jobs and agents, the worst of ages."""
    found = list(signals.values())
    unknown = not found or any(one.backlog is None for one in found)
    agents = sum(one.agents_ready for one in found)
    cpus = [one.cpu_percent for one in found if one.cpu_percent is not None]
    return GroupSignals(
        ready=None if unknown else sum(one.ready or 0 for one in found),
        running=None if unknown else sum(one.running or 0 for one in found),
        reserved=sum(one.reserved for one in found),
        leaving=sum(one.leaving for one in found),
        held=sum(one.held for one in found),
        next_due=min((one.next_due for one in found if one.next_due is not None), default=None),
        agents_ready=agents,
        agents_starting=sum(one.agents_starting for one in found),
        agents_draining=sum(one.agents_draining for one in found),
        agents_busy=sum(one.agents_busy for one in found),
        beats_fresh=all(one.beats_fresh for one in found),
        beats_age=max((one.beats_age for one in found if one.beats_age is not None), default=None),
        slots=max(1, round(sum(one.slots * one.agents_ready for one in found) / agents)) if agents else 1,
        due_soon=sum(one.due_soon for one in found),
        oldest_age=max((one.oldest_age for one in found if one.oldest_age is not None), default=None),
        arrival_rate=sum(one.arrival_rate for one in found),
        burst_rate=sum(one.burst_rate for one in found),
        cpu_percent=sum(cpus) / len(cpus) if cpus else None,
    )


_LEAST_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Learned:
    """What looks have taught about a group. begun, at: the first and the last look; jobs: all that were there then.

    stable, burst: arrivals per second over the two windows; service_time: of the agents that were seen last.
    """

    begun: float
    at: float
    jobs: int
    stable: float = 0.0
    burst: float = 0.0
    service_time: float | None = None


def learn(
    before: Learned | None, now: float, jobs: int, ended: int, windows: tuple[float, float], service: float | None
) -> Learned:
    """Return what is known after another look.

    jobs: all that wait, are held or run (R + U + A + E); ended: how many ended since the last look. What came in
    between is the growth of the one plus the other. windows: the stable and the panic window. service: the mean of
    the agents' own moving averages; None keeps what was known, also while a group sleeps.
    """
    if before is None or now <= before.at:
        begun = min(before.begun, now) if before else now  # a clock that was set back
        known = service if service is not None else (before.service_time if before else None)
        return Learned(begun, now, jobs, before.stable if before else 0.0, before.burst if before else 0.0, known)
    # A divisor so small that the rate is no number any more is no time that passed between two looks.
    elapsed, age = max(now - before.at, _LEAST_SECONDS), max(now - before.begun, _LEAST_SECONDS)
    fresh = max(0, jobs - before.jobs + ended) / elapsed

    def smoothed(rate: float, window: float) -> float:
        # A young memory is a plain mean: from zero, a long window would take as long to believe its first jobs.
        weight = max(1.0 - math.exp(-elapsed / window), min(1.0, elapsed / age))
        return rate + weight * (fresh - rate)

    return Learned(
        before.begun,
        now,
        jobs,
        smoothed(before.stable, windows[0]),
        smoothed(before.burst, windows[1]),
        service if service is not None else before.service_time,
    )


def as_inputs(signals: Mapping[str, GroupSignals]) -> dict[str, Any]:
    """Return ``signals`` as JSON-ready data for the history, without what is at its default."""
    return {name: _stated(found) for name, found in signals.items()}


def from_inputs(found: Mapping[str, Mapping[str, Any]]) -> dict[str, GroupSignals]:
    """Return the signals that ``as_inputs`` wrote. Fields that this version does not know are left out."""
    return {
        name: GroupSignals(**{key: value for key, value in fields.items() if key in _DEFAULTS})
        for name, fields in found.items()
    }


_DEFAULTS = asdict(GroupSignals())


def _stated(found: GroupSignals) -> dict[str, Any]:
    stated = {key: getattr(found, key) for key in _DEFAULTS}
    return {key: value for key, value in stated.items() if value != _DEFAULTS[key]}
