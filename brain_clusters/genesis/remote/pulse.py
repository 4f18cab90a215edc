"""How agents live that only their beats tell of: begun when they beat, ended when they have ceased to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from brain_clusters.genesis.driver import Phase, Sighting

_LOOK_SECONDS = 0.5
# Longer between two looks, and Redis was away or this process stood still: silence is counted anew.
_GAP_SECONDS = 5.0
# An agent is silent for so many times the age of a stale beat before it counts as ended: a beat may just be late.
_SILENCES = 2.0

Beating = Callable[[Sequence[str]], Set[str]]


@dataclass(slots=True)
class _Life:
    """heard: whether it ever beat; since: of the last beat seen, or of its spawning. Monotonic seconds.

    waits: why it is not spawned yet. told: it was told to leave. ended: how it ended.
    """

    since: float
    heard: bool = False
    waits: str | None = None
    told: bool = False
    ended: str | None = None


class Pulse:
    """Implements ``genesis.watching.Source`` on the beats in Redis. Safe for threads.

    beating: returns those of some ids that beat; raises TemporaryError. first_seconds: by then a spawned agent must
    have beaten once. stale_seconds: how long a beat is kept.
    """

    def __init__(self, beating: Beating, *, first_seconds: float, stale_seconds: float) -> None:
        self._beating = beating
        self._first = first_seconds
        self._silence = _SILENCES * stale_seconds
        self._lock = threading.Lock()
        self._lives: dict[str, _Life] = {}
        self._looked_at = time.monotonic()
        self._hung_up = threading.Event()

    # --- what is known otherwise --------------------------------------------------------------------------------

    def expect(self, agent_id: str) -> None:
        """Note that an agent was spawned."""
        with self._lock:
            self._lives[agent_id] = _Life(time.monotonic())

    def delay(self, agent_ids: Iterable[str], reason: str) -> None:
        """Note why agents are not spawned yet."""
        with self._lock:
            for agent_id in agent_ids:
                self._lives.setdefault(agent_id, _Life(0.0)).waits = reason

    def refuse(self, agent_id: str, reason: str) -> None:
        """Note why an agent will not be spawned."""
        with self._lock:
            self._lives[agent_id] = _Life(0.0, ended=reason)

    def note_told(self, agent_ids: Iterable[str], *, drains: bool) -> None:
        """Note that agents were told to leave, or to go on."""
        with self._lock:
            for agent_id in agent_ids:
                if agent_id in self._lives:
                    self._lives[agent_id].told = drains

    def forget(self, agent_ids: Iterable[str]) -> None:
        """Follow agents no longer."""
        with self._lock:
            for agent_id in agent_ids:
                self._lives.pop(agent_id, None)

    # --- what is seen -------------------------------------------------------------------------------------------

    def find(self, agent_ids: Sequence[str]) -> None:
        """Follow those of ``agent_ids`` that beat: an earlier host had them spawned. Raises TemporaryError."""
        beating = self._beating(agent_ids)
        with self._lock:
            for agent_id in beating:
                self._lives.setdefault(agent_id, _Life(time.monotonic(), heard=True))

    def sightings(self, agent_ids: Sequence[str] | None = None) -> list[Sighting]:
        """Return those of ``agent_ids`` that are known, or all."""
        with self._lock:
            wanted = self._lives if agent_ids is None else [one for one in agent_ids if one in self._lives]
            return [_sighting(agent_id, self._lives[agent_id]) for agent_id in wanted]

    def follow(self) -> Iterator[Sequence[Sighting]]:
        """Yield all that are known, again and again. Raises TemporaryError while Redis is away."""
        while not self._hung_up.is_set():
            self._look()
            yield self.sightings()
            self._hung_up.wait(_LOOK_SECONDS)

    def hang_up(self) -> None:
        """Have ``follow`` end."""
        self._hung_up.set()

    def _look(self) -> None:
        with self._lock:
            ids = [agent_id for agent_id, life in self._lives.items() if life.ended is None]
        beating = self._beating(ids)
        now = time.monotonic()
        with self._lock:
            anew = now - self._looked_at > _GAP_SECONDS
            self._looked_at = now
            for agent_id in ids:
                life = self._lives.get(agent_id)
                if life is not None:
                    self._judge(life, now, beats=agent_id in beating, anew=anew)

    def _judge(self, life: _Life, now: float, *, beats: bool, anew: bool) -> None:
        if beats:
            life.heard, life.waits = True, None
        if beats or anew:
            life.since = now
        silent = now - life.since
        if life.waits is not None:
            return
        if not life.heard and silent > self._first:
            life.ended = f"the Genesis service spawned it, but no beat of it came in {self._first:g} s"
        elif life.heard and silent > (0.0 if life.told else self._silence):
            life.ended = "its beats ceased"


def _sighting(agent_id: str, life: _Life) -> Sighting:
    if life.ended is not None:
        return Sighting(agent_id, Phase.ENDED, {"spawned": True}, reason=life.ended)
    if life.waits is not None:
        return Sighting(agent_id, Phase.STARTING, reason=life.waits)
    if not life.heard:
        return Sighting(agent_id, Phase.STARTING, {"spawned": True}, reason="spawned; its first beat is awaited")
    return Sighting(agent_id, Phase.RUNNING, {"spawned": True}, ready=True)
