"""The process driver: agents are forked on this machine, and their ends are seen at once."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.genesis.driver import Driver, Kit, Sighting
from brain_clusters.genesis.process.local import LocalAgent, end_session, tidy_logs
from brain_clusters.genesis.process.nursery import Nursery
from brain_clusters.genesis.process.population import Population
from brain_clusters.processes import ProcessId, tail

log = logging.getLogger(__name__)

# An agent that was asked for and has no process by then is asked for again: its zygote died in between.
_SPAWN_PATIENCE_SECONDS = 30.0
# Zygotes reap within a millisecond or two. The code is only told to people, so a late one is not waited for.
_CODE_SECONDS = 0.1
_TIDY_SECONDS = 60.0


class ProcessDriver(Driver):
    """Has zygotes fork agents. run_dir: where their lock files are; log_dir: where they write to."""

    def __init__(self, nursery: Nursery, *, run_dir: Path, log_dir: Path) -> None:
        self._nursery = nursery
        self._log_dir = log_dir
        # A selector of its own, whose descriptor is readable when one in it is: so the host waits for one thing.
        self._selector = selectors.DefaultSelector()
        self._population = Population(run_dir, self._selector)
        self._next_tidy = 0.0
        self._told_dead: set[str] = set()

    @classmethod
    def make(cls, kit: Kit) -> ProcessDriver:
        """Return the driver of this machine; make its folders."""
        run_dir, log_dir = Path(kit.agent["run_dir"]), Path(kit.agent["log_dir"])
        for folder in (run_dir, log_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        nursery = Nursery(kit.agent, kit.environ, kit.settings.home / "logs" / "zygote.log")
        return cls(nursery, run_dir=run_dir, log_dir=log_dir)

    def open(self) -> None:
        """Start the base zygote, and find what an earlier host left running."""
        self._nursery.attach(self._selector)
        self._nursery.warm()
        self._population.find_survivors()

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Ask the zygotes for forks."""
        for spec in specs:
            if self._find(spec.agent_id) is None:
                self._population.expect(spec, self._nursery.loads_of(spec).key)
                self._nursery.spawn(spec)
        return self.sight([spec.agent_id for spec in specs])

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Mark them, and signal them to look."""
        for agent in self._living(agent_ids):
            agent.tell(drains=True)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Unmark them, and signal them to look."""
        for agent in self._living(agent_ids):
            agent.tell(drains=False)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Send SIGTERM, or SIGKILL. While an agent is being born that waits: its pid comes soon."""
        for agent in self._living(agent_ids):
            agent.end(now=now)

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """Return what lives or has ended, looking for the lock files of what is not known."""
        if agent_ids is None:
            self._population.find_survivors()
            known = (*self._population.living.values(), *self._population.ended.values())
            return [agent.sighting() for agent in known]
        return [agent.sighting() for agent in map(self._find, agent_ids) if agent is not None]

    def _find(self, agent_id: str) -> LocalAgent | None:
        return self._population.find(agent_id) or self._population.ended.get(agent_id)

    def _living(self, agent_ids: Sequence[str]) -> list[LocalAgent]:
        living = self._population.living
        return [living[agent_id] for agent_id in agent_ids if agent_id in living]

    # --- what happens -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor of the selector."""
        return self._selector.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Take the zygotes' reports and the ends of processes."""
        for key, _ in self._selector.select(0):
            if key.data == "zygote":
                self._bury_zygote(key.fileobj)
            elif key.data != "report":
                self._population.note_death(key.data)
        self._take_reports()
        self._population.note_unseen_deaths()
        self._learn_codes()
        self._population.bring_back()
        dead = self._population.take_dead()
        self._told_dead.update(agent.agent_id for agent in dead)
        for agent in dead:
            if agent.process is not None:
                end_session(agent.process.pid)
        return [agent.sighting() for agent in [*self._population.take_changed(), *dead]]

    def _bury_zygote(self, control: object) -> None:
        handler = self._nursery.bury_dead(control)
        self._take_reports()
        self._population.fail_unborn(handler, "the zygote that was to start it died; see zygote.log of its host")

    def _take_reports(self) -> None:
        for report in self._nursery.reports():
            kind = report["is"]
            if kind == "spawned":
                process = ProcessId(report["pid"], report["started"])
                self._population.follow(report["agent"], process, reaped_here=True)
            elif kind == "ready":
                self._population.note_ready(report["agent"])
            elif kind == "exited":
                self._population.note_exit(report["pid"], report["code"])
            elif kind == "loaded":
                self._nursery.note_loaded(report["key"], report["pid"])
            elif kind == "unloadable":
                self._nursery.refuse(report["key"])
                self._population.fail_unborn(report["key"], report["error"])

    def _learn_codes(self) -> None:
        """Wait for the exit codes of the dead, which their zygotes report a moment after the exit descriptors tell."""
        deadline = time.monotonic() + _CODE_SECONDS
        while any(agent.reaped_here and agent.code is None for agent in self._population.dead):
            left = deadline - time.monotonic()
            if left <= 0 or not self._nursery.wait(left):
                return
            self._take_reports()

    # --- now and then -------------------------------------------------------------------------------------------

    def upkeep(self, warm: Sequence[Loads] | None) -> Mapping[str, int]:
        """End zygotes that are idle for long, start those that are to be kept, and look for what was overlooked."""
        if warm is not None:
            self._nursery.keep(warm)
        self._nursery.retire_idle()
        self._population.find_survivors()
        for agent in self._population.unborn(_SPAWN_PATIENCE_SECONDS):
            log.warning("an agent was not born; it is asked for again", extra={"agent_id": agent.agent_id})
            agent.since = time.monotonic()
            if agent.spec is not None:
                self._nursery.spawn(agent.spec)
        if time.monotonic() >= self._next_tidy:
            self._next_tidy = time.monotonic() + _TIDY_SECONDS
            tidy_logs(self._log_dir, living=self._population.living.keys())
            self._population.tidy()
        return self._nursery.memory()

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Delete the files by which they were found and told. Their logs stay for a day."""
        self._population.forget(agent_ids)
        self._told_dead.difference_update(agent_ids)

    def logs(self, agent_id: str, lines: int) -> str:
        """Return the end of its log file."""
        return tail(self._log_dir / f"{agent_id}.log", lines)

    def close(self) -> None:
        """End the zygotes, and delete the files of the dead: the next host sees by none, too, that they are."""
        self._population.forget(sorted(self._told_dead))
        self._nursery.close()
        self._population.close()
        self._selector.close()
