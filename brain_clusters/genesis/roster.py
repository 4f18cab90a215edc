"""The agents of one host: which live, which became ready, and which died and are still to be told of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.kept import Kept


class Roster:
    """living, dead (to be buried): by agent id. ready: handles that are to be told. reasons: likewise."""

    def __init__(self) -> None:
        self.living: dict[str, Kept] = {}
        self.dead: dict[str, Kept] = {}
        self.ready: dict[str, Mapping[str, Any]] = {}
        self.reasons: dict[str, str | None] = {}

    @property
    def unheard(self) -> list[str]:
        """Those that run and whose first beat is waited for, as their engine cannot tell whether they consume."""
        return [
            agent_id
            for agent_id, kept in self.living.items()
            if not kept.ready and kept.sighting.ready is None and kept.sighting.phase is Phase.RUNNING
        ]

    def note(self, sightings: Iterable[Sighting]) -> None:
        """Note what the engine shows."""
        for sighting in sightings:
            if sighting.phase is Phase.ENDED:
                self._note_end(sighting)
            else:
                self._note_life(sighting)

    def _note_life(self, sighting: Sighting) -> None:
        self.dead.pop(sighting.agent_id, None)
        kept = self.living.get(sighting.agent_id)
        before = None if kept is None else kept.sighting.reason
        if kept is None:
            # What was started just now was told nothing; what an earlier host left may have been.
            drains = False if sighting.phase is Phase.STARTING else None
            kept = self.living[sighting.agent_id] = Kept(sighting, drains=drains)
        if sighting.reason != before:
            self.reasons[sighting.agent_id] = sighting.reason
        kept.sighting = sighting
        if sighting.ready and sighting.phase is Phase.RUNNING:
            self._note_ready(kept)

    def _note_end(self, sighting: Sighting) -> None:
        known = self.living.pop(sighting.agent_id, None) or self.dead.get(sighting.agent_id)
        kept = known or Kept(sighting, lost=_leaves_no_reason(sighting))
        kept.sighting = sighting
        self.ready.pop(sighting.agent_id, None)
        self.reasons.pop(sighting.agent_id, None)
        self.dead[sighting.agent_id] = kept

    def note_beating(self, agent_ids: Set[str]) -> None:
        """Note whose beats were seen."""
        for agent_id in agent_ids & self.living.keys():
            self._note_ready(self.living[agent_id])

    def _note_ready(self, kept: Kept) -> None:
        if not kept.ready:
            kept.ready = True
            self.ready[kept.agent_id] = kept.sighting.handle

    def note_lost(self, agent_id: str) -> None:
        """Note that an agent ended with an earlier host, which is not its fault: as if it had been asked to leave."""
        self.dead[agent_id] = Kept(Sighting(agent_id, Phase.ENDED), lost=True)

    def note_told(self, agent_ids: Sequence[str], *, drains: bool | None) -> None:
        """Note who was told to drain, or to go on; None: who is being told, of which the reply may be lost."""
        for agent_id in agent_ids:
            self.living[agent_id].note_told(drains=drains)

    def note_asked_to_leave(self, agent_ids: Sequence[str]) -> None:
        """Note who is being told to end, of which the reply may be lost."""
        for agent_id in agent_ids:
            self.living[agent_id].asked_to_leave = True

    def note_stopped(self, agent_ids: Sequence[str]) -> None:
        """Note who was told to end."""
        for agent_id in agent_ids:
            self.living[agent_id].stopped = True

    def to_kill(self, agent_ids: Iterable[str], again_seconds: float) -> list[str]:
        """Return those that live and were not killed in the last seconds."""
        before = time.monotonic() - again_seconds
        living = [self.living[agent_id] for agent_id in agent_ids if agent_id in self.living]
        return [kept.agent_id for kept in living if kept.killed_at is None or kept.killed_at < before]

    def note_killed(self, agent_ids: Sequence[str]) -> None:
        """Note who was killed."""
        for agent_id in agent_ids:
            self.living[agent_id].killed_at = time.monotonic()

    def bury(self, dead: Sequence[Kept]) -> None:
        """Forget the dead, whose ends were told."""
        for kept in dead:
            self.dead.pop(kept.agent_id, None)


def _leaves_no_reason(ended: Sighting) -> bool:
    """Whether an agent of an earlier host ended without a fault that anybody saw."""
    return ended.code == 0 or (ended.code is None and ended.reason is None)
