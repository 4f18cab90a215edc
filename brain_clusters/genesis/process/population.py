"""The agents of one machine: which live, which became ready, and which died and are still to be told of.

It follows processes by their exit descriptors, and finds by their lock files those that nobody told it of.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from pathlib import Path
from typing import Any

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.process.local import LocalAgent, exit_descriptor, holder, lock_path
from brain_clusters.processes import ProcessId, drain_marker

log = logging.getLogger(__name__)


class Roster:
    """living: by agent id, also those without a process yet. ready: handles that are to be told. dead: to be buried.

    The selector gets each agent as the data of its exit descriptor.
    """

    def __init__(self, run_dir: Path, selector: selectors.BaseSelector) -> None:
        self.living: dict[str, LocalAgent] = {}
        self.ready: dict[str, dict[str, Any]] = {}
        self.dead: list[LocalAgent] = []
        self._by_pid: dict[int, LocalAgent] = {}
        self._run_dir = run_dir
        self._selector = selector

    def expect(self, spec: AgentSpec, zygote: str) -> None:
        """Note an agent that is about to be born by ``zygote``."""
        self.living[spec.agent_id] = self._local(spec, zygote)

    def lock(self, agent_id: str) -> Path:
        """Return the file that the agent holds locked while it lives."""
        return lock_path(self._run_dir, agent_id)

    def holder(self, agent_id: str) -> ProcessId | None:
        """Return the process that is the agent, if there is one."""
        return holder(self.lock(agent_id))

    def follow(self, agent_id: str, process: ProcessId, *, reaped_here: bool = False) -> None:
        """Watch a process that is an agent of ours."""
        agent = self.living.get(agent_id)
        if agent is None:
            process.send(signal.SIGKILL)  # it was given up before it was born
            return
        if agent.process is not None:
            return  # the lock is taken by the one that is followed already, so this one ends by itself
        agent.process, agent.reaped_here = process, reaped_here
        self._by_pid[process.pid] = agent
        agent.exit_descriptor = exit_descriptor(process.pid)
        if agent.exit_descriptor is not None:
            self._selector.register(agent.exit_descriptor, selectors.EVENT_READ, agent)
        elif not process.alive:
            self.note_death(agent)

    def adopt(self, agent_id: str, process: ProcessId) -> None:
        """Follow a process that is known by its lock file. An earlier host may have told it to drain, or to go on."""
        marker = drain_marker(self._run_dir, agent_id)
        self.living[agent_id] = LocalAgent(agent_id, "", time.monotonic(), marker, ready=True, drains=None)
        self.ready[agent_id] = {"pid": process.pid, "started": process.started}
        self.follow(agent_id, process)

    def find_survivors(self) -> None:
        """Follow every agent that an earlier host of this machine left running, or left to be born after we looked."""
        known = self.living.keys() | {agent.agent_id for agent in self.dead}
        found = {path.stem: holder(path) for path in self._run_dir.glob("*.lock") if path.stem not in known}
        for agent_id, process in found.items():
            if process is not None:
                self.adopt(agent_id, process)
        if any(found.values()):
            log.info("found %d agents that still run", sum(process is not None for process in found.values()))

    def note_ready(self, agent_id: str) -> None:
        """Note that an agent consumes."""
        agent = self.living.get(agent_id)
        if agent is None:
            return
        # On a busy machine it is ready before its zygote came to tell of its birth.
        process = None if agent.process else self.holder(agent_id)
        if process is not None:
            self.follow(agent_id, process, reaped_here=True)
        agent.ready = True
        process = agent.process
        self.ready[agent_id] = {"pid": process.pid, "started": process.started} if process else {}

    def note_exit(self, pid: int, code: int) -> None:
        """Note an exit code. The exit descriptor may have told of that death before."""
        dead = (agent for agent in self.dead if agent.process is not None and agent.process.pid == pid)
        agent = self._by_pid.get(pid) or next(dead, None)
        if agent is not None:
            agent.code = code
            self.note_death(agent)

    def note_death(self, agent: LocalAgent) -> None:
        """Note that an agent is gone."""
        if self.living.pop(agent.agent_id, None) is None:
            return
        if agent.exit_descriptor is not None:
            self._selector.unregister(agent.exit_descriptor)
            os.close(agent.exit_descriptor)
            agent.exit_descriptor = None
        if agent.process is not None:
            self._by_pid.pop(agent.process.pid, None)
        self.ready.pop(agent.agent_id, None)
        self.dead.append(agent)

    def note_unseen_deaths(self) -> None:
        """Ask after those that have no exit descriptor, where the system has none."""
        for agent in list(self.living.values()):
            if agent.exit_descriptor is None and agent.process is not None and not agent.process.alive:
                self.note_death(agent)

    def fail_unborn(self, handler: str | None, error: str) -> None:
        """Give up the agents that a zygote was to start; one that it did start without telling is followed."""
        for agent in [one for one in self.living.values() if one.handler == handler and one.process is None]:
            process = self.holder(agent.agent_id)
            if process is not None:
                self.follow(agent.agent_id, process)
            else:
                agent.error = error
                self.note_death(agent)

    def bring_back(self) -> None:
        """Follow the processes that hold the locks of dead ones: then those agents live.

        A host that was killed may leave a child that has not locked its file yet. Its successor sees no process and
        starts the agent again, and the second of the two finds the lock taken and ends: the agent lives.
        """
        living: dict[str, ProcessId] = {}
        for agent in self.dead:
            process = self.holder(agent.agent_id)
            if process is not None and process != agent.process and process.alive:
                living[agent.agent_id] = process
        self.dead = [agent for agent in self.dead if agent.agent_id not in living]
        for agent_id, process in living.items():
            self.adopt(agent_id, process)

    def note_lost(self, spec: AgentSpec) -> None:
        """Note that an agent ended with an earlier host, which is not its fault: as if it had been asked to leave."""
        agent = self._local(spec)
        agent.asked_to_leave_at = time.monotonic()
        self.dead.append(agent)

    def bury(self) -> None:
        """Forget the dead, and what they leave on the disk."""
        for agent in self.dead:
            agent.marker.unlink(missing_ok=True)
            self.lock(agent.agent_id).unlink(missing_ok=True)
        self.dead.clear()

    def _local(self, spec: AgentSpec, zygote: str = "") -> LocalAgent:
        marker = drain_marker(self._run_dir, spec.agent_id)
        return LocalAgent(spec.agent_id, zygote, time.monotonic(), marker)
