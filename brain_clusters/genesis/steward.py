"""What a host has its driver do, so that what the rows want becomes true on the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.desk import Desk, Wanted
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.roster import Roster

# What was to be killed and still is there is killed again.
_KILL_AGAIN_SECONDS = 5.0


class Steward:
    """Starts, drains and ends agents in batches, each told but once. Whatever raises is done again at the next look.

    start_failed: the engine did not answer when agents were to be started, and has not been asked with success since.
    """

    def __init__(self, desk: Desk, driver: Driver, roster: Roster) -> None:
        self._desk = desk
        self._driver = driver
        self._roster = roster
        self.start_failed = False

    def start(self, specs: Sequence[AgentSpec]) -> None:
        """Have agents started."""
        if specs:
            self.start_failed = True
            self._roster.note(self._driver.start(specs))
            self.start_failed = False

    def make_true(self, wanted: Mapping[str, Wanted]) -> None:
        """Act on every difference between the live rows, by agent id, and the roster."""
        known = self._roster.living.keys() | self._roster.dead.keys()
        self._recover([row for agent_id, row in wanted.items() if agent_id not in known])
        self.start_failed = False
        rows = [row for agent_id, row in wanted.items() if agent_id in self._roster.living]
        self._drain([row for row in rows if row.draining])
        self._go_on(row.spec.agent_id for row in rows if not row.draining)
        # What has no live row was given up, and what it held is done by others.
        self.kill(self._roster.living.keys() - wanted.keys())

    def _recover(self, rows: Sequence[Wanted]) -> None:
        """Deal with rows of ours that nothing known answers to: find the agent, start it, or report its end."""
        if not rows:
            return
        self._roster.note(self._driver.sight([row.spec.agent_id for row in rows]))
        found = self._roster.living.keys() | self._roster.dead.keys()
        missing = [row for row in rows if row.spec.agent_id not in found]
        for row in missing:
            if row.draining or row.started:
                self._roster.note_lost(row.spec.agent_id)
            else:
                # It may have run without anybody's knowledge, and have held a job when it ended.
                self._desk.release(row.spec.agent_id)
        self.start([row.spec for row in missing if not (row.draining or row.started)])

    def _drain(self, rows: Sequence[Wanted]) -> None:
        """Have agents drain. One that never consumed just ends, and one that takes too long is killed."""
        living = self._roster.living
        drained = [row.spec.agent_id for row in rows]
        self.stop(row.spec.agent_id for row in rows if not (row.started or living[row.spec.agent_id].ready))
        told = [one for one in drained if living[one].may_be_told and not living[one].drains]
        if told:
            self._roster.note_told(told, drains=None)
            self._driver.drain(told)
            self._roster.note_told(told, drains=True)
        self.kill(
            row.spec.agent_id for row in rows if row.kill_after is not None and row.draining_seconds > row.kill_after
        )

    def _go_on(self, agent_ids: Iterable[str]) -> None:
        """Have agents take jobs again that were told to drain, or may have been."""
        living = self._roster.living
        told = [one for one in agent_ids if living[one].may_be_told and living[one].drains is not False]
        if told:
            self._roster.note_told(told, drains=None)
            self._driver.resume(told)
            self._roster.note_told(told, drains=False)

    def stop(self, agent_ids: Iterable[str]) -> None:
        """Have agents finish what they do and end, for good."""
        told = [agent_id for agent_id in agent_ids if self._roster.living[agent_id].may_be_told]
        if told:
            self._roster.note_asked_to_leave(told)
            self._driver.stop(told)
            self._roster.note_stopped(told)

    def kill(self, agent_ids: Iterable[str]) -> None:
        """Have agents end at once."""
        due = self._roster.to_kill(agent_ids, _KILL_AGAIN_SECONDS)
        if due:
            self._driver.stop(due, now=True)
            self._roster.note_killed(due)
