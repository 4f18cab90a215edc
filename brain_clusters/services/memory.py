"""What the autoscaler remembers from one tick to the next: in Redis, so that any worker may run the next tick.

It is one JSON text for all clusters that are awake. Losing it loses no intent and no history: rates are learned anew,
and a stabilization window begins anew with the count that stands, so that nothing shrinks for its loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brain_clusters.broker.client import Broker, temporary_when_away
from brain_clusters.domain.signals import Learned
from brain_clusters.domain.windows import GroupState

_KEY = "brain:scaling"
# Long beyond any pause between two ticks that a window could bridge.
_KEPT_SECONDS = 3600
# A change of this number makes old memories unreadable on purpose.
_FORMAT = 2


@dataclass(slots=True)
class ClusterMemory:
    """One cluster's memory. told: the gates that were last written down, and when; looked_at: the last choice. Times
    are seconds since the epoch.
    """

    learned: dict[str, Learned] = field(default_factory=dict)
    state: dict[str, GroupState] = field(default_factory=dict)
    told: tuple[str, float] = ("", 0.0)
    looked_at: float = 0.0


@dataclass(slots=True)
class Memory:
    """All clusters' memories by id. at: the time of the last tick (seconds since the epoch), None at first.

    at is by Redis's clock; seen_at is when that tick read the clusters, by PostgreSQL's.
    """

    at: float | None = None
    clusters: dict[str, ClusterMemory] = field(default_factory=dict)
    seen_at: float | None = None

    def of(self, cluster_id: str) -> ClusterMemory:
        """Return a cluster's memory; a new one where there is none."""
        return self.clusters.setdefault(cluster_id, ClusterMemory())


def load(broker: Broker) -> Memory:
    """Return what the last tick left. Raises TemporaryError when Redis is away."""
    with temporary_when_away():
        [stored] = broker.redis.mget([_KEY])  # not GET, which fails on a key of another type
    try:
        found = json.loads(stored) if stored else {}
        if found.get("format") != _FORMAT:
            return Memory()
        clusters = {name: _cluster(one) for name, one in found["clusters"].items()}
        return Memory(_number(found["at"]), clusters, _maybe(found.get("seen_at")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Memory()  # agents run users' code, which can write here


def save(broker: Broker, memory: Memory) -> None:
    """Leave ``memory`` for the next tick. Raises TemporaryError when Redis is away."""
    clusters = {name: _listed(one) for name, one in memory.clusters.items()}
    stored = {"format": _FORMAT, "at": memory.at, "seen_at": memory.seen_at, "clusters": clusters}
    text = json.dumps(stored, separators=(",", ":"))
    with temporary_when_away():
        broker.redis.set(_KEY, text, ex=_KEPT_SECONDS)


def _listed(memory: ClusterMemory) -> list[Any]:
    learned = {
        name: (one.begun, one.at, one.jobs, one.stable, one.burst, one.service_time)
        for name, one in memory.learned.items()
    }
    return [learned, state_as_json(memory.state), memory.told, memory.looked_at]


def _cluster(found: list[Any]) -> ClusterMemory:
    learned, state, told, looked_at = found
    return ClusterMemory(
        {name: _learned(*one) for name, one in learned.items()},
        {name: _state(one) for name, one in state.items()},
        (str(told[0]), _number(told[1])),
        _number(looked_at),
    )


def _learned(begun: Any, at: Any, jobs: Any, stable: Any, burst: Any, service: Any) -> Learned:
    return Learned(
        _number(begun), _number(at), int(_number(jobs)), _number(stable), _number(burst), _maybe(service)
    )  # fmt: skip


def _state(found: list[Any]) -> GroupState:
    target, peaks, lows, grown, *rest = found
    numbers = [_maybe(one) for one in (target, *rest)]
    if None in numbers[1:4]:
        raise ValueError("a state lacks a number")
    return GroupState(target, _needs(peaks), _needs(lows), _needs(grown), *rest)


def _needs(found: list[Any]) -> tuple[tuple[float, int], ...]:
    return tuple((_number(at), int(_number(count))) for at, count in found)


def _number(found: Any) -> float:
    """Return ``found``; raise ValueError for what is no finite number."""
    if type(found) not in (int, float) or not math.isfinite(found):
        raise ValueError(f"{found!r} is no number")
    return float(found)


def _maybe(found: Any) -> float | None:
    return None if found is None else _number(found)


def state_as_json(state: Mapping[str, GroupState]) -> dict[str, Any]:
    """Return states as JSON-ready data for the ledger."""
    return {
        name: (one.target, one.peaks, one.lows, one.grown, one.votes, one.panic_until, one.hold, one.shrunk_at)
        for name, one in state.items()
    }


def state_from_json(found: Mapping[str, Any]) -> dict[str, GroupState]:
    """Return what ``state_as_json`` wrote."""
    return {name: _state(one) for name, one in found.items()}
