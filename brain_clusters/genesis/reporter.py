"""What a host tells of its agents: who became ready, why others are not yet, and who ended."""

from __future__ import annotations

from contextlib import suppress

from brain_clusters.errors import BrainError
from brain_clusters.genesis.desk import Desk
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.roster import Roster

_LAST_WORDS_LINES = 3


class Reporter:
    """Tells the desk what the roster has for it, and has the driver remove whom it told to have ended."""

    def __init__(self, desk: Desk, driver: Driver, roster: Roster) -> None:
        self._desk = desk
        self._driver = driver
        self._roster = roster
        self._unremoved: set[str] = set()

    def tell(self) -> None:
        """Tell everything. Raises TemporaryError; what was not told by then is told by the next call."""
        if self._roster.unheard:
            self._roster.note_beating(self._desk.beating(self._roster.unheard))
        if self._roster.ready:
            self._desk.ready(self._roster.ready)
            self._roster.ready = {}
        if self._roster.reasons:
            self._desk.explain(self._roster.reasons)
            self._roster.reasons = {}
        if self._roster.dead:
            self._bury()
        if self._unremoved:
            self._driver.remove(sorted(self._unremoved))
            self._unremoved.clear()

    def _bury(self) -> None:
        """Return what the dead held, then report them. In this order: a crash in between repeats both, harmlessly."""
        dead = list(self._roster.dead.values())
        for kept in dead:
            self._desk.release(kept.agent_id)
        self._desk.ended(
            [kept.obituary("" if kept.left_as_asked else self._last_words(kept.agent_id)) for kept in dead]
        )
        self._roster.bury(dead)
        self._unremoved.update(kept.agent_id for kept in dead)

    def _last_words(self, agent_id: str) -> str:
        with suppress(BrainError):
            return self._driver.logs(agent_id, _LAST_WORDS_LINES).strip()
        return ""
