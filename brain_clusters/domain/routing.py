"""Which of several clusters a job should go to: the one where it is expected to begin first. Pure; times in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from brain_clusters.domain.sizing import DEFAULT_START_SECONDS

# Until a job of a group was measured: as long as a short call to a service takes.
DEFAULT_SERVICE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One group that offers what is asked for.

    jobs: what waits, is reserved or runs there (R + U + A), None while that is unknown. agents: those that are ready
    or starting. slots: per agent. service_time (S), start_time (T0): None is not measured yet. asleep: the job would
    wake its cluster. has_room: an agent may be started where there is none.
    """

    cluster_id: str
    group: str
    jobs: int | None
    agents: int = 0
    slots: int = 1
    service_time: float | None = None
    start_time: float | None = None
    asleep: bool = False
    has_room: bool = True

    @property
    def expected_wait(self) -> float | None:
        """The seconds until a job that comes now begins; None while that cannot be said.

        With n jobs there and m = slots * agents, one that comes has to wait for max(0, n - m + 1) of them to end, and
        one ends every S / m. Source: the mean wait in an M/M/m queue that is found with n jobs. Where there is no
        agent, T0 passes first and m is the slots of the one that starts.
        """
        if self.jobs is None or (self.agents == 0 and not self.has_room):
            return None
        service = DEFAULT_SERVICE_SECONDS if self.service_time is None else self.service_time
        start = DEFAULT_START_SECONDS if self.start_time is None else self.start_time
        slots = self.slots * max(1, self.agents)
        return max(0, self.jobs - slots + 1) * service / slots + (0.0 if self.agents else start)

    @property
    def load(self) -> float:
        """Jobs per slot, to tell apart those that do not let wait."""
        return (self.jobs or 0) / (self.slots * max(1, self.agents))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a job goes and why. others: the other candidates, the next best first."""

    best: Candidate
    reason: str
    others: tuple[Candidate, ...]


def route(candidates: Sequence[Candidate]) -> Route:
    """Return the candidate with the shortest expected wait; then the least loaded one, then the first by id."""
    best, *others = sorted(candidates, key=_order)
    return Route(best, _reason(best, others), tuple(others))


def _order(candidate: Candidate) -> tuple[float, bool, float, str, str]:
    wait = candidate.expected_wait
    known = math.inf if wait is None else wait
    # Where nothing is known, one that is awake is the better guess.
    return known, candidate.asleep, candidate.load, candidate.cluster_id, candidate.group


def _reason(best: Candidate, others: Sequence[Candidate]) -> str:
    if not others:
        return f"{_told(best)}; no other cluster offers it"
    return f"{_told(best)}; the next best is {others[0].cluster_id}: {_told(others[0])}"


def _told(one: Candidate) -> str:
    wait = one.expected_wait
    if wait is None:
        unknown = "what waits there is unknown" if one.jobs is None else "it has no agent and no room for one"
        return f"no wait can be told, as {unknown}"
    jobs = f"{one.jobs} {'job' if one.jobs == 1 else 'jobs'}"
    if one.agents == 0:
        state = "asleep" if one.asleep else "without an agent"
        return f"about {wait:.2g} s, with {jobs} there and an agent to be started, as it is {state}"
    slots = one.slots * one.agents
    return f"about {wait:.2g} s, with {jobs} there for {slots} {'slot' if slots == 1 else 'slots'}"
