"""The agents of one machine: which live, and which died and are still to be told of.

It follows processes by their exit descriptors, and finds by their lock files those that nobody told it of.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.process.local import LocalAgent, exit_descriptor, holder, lock_path, was_held
from brain_clusters.processes import ProcessId, drain_marker

log = logging.getLogger(__name__)

_BIRTH_SECONDS = 60.0


class Population:
    """living: by agent id, also those without a process yet. ended: by agent id, until they are forgotten. dead: those
    of them whose ends are still to be told.

    The selector gets each agent as the data of its exit descriptor.
    """

    def __init__(self, run_dir: Path, selector: selectors.BaseSelector) -> None:
        self.living: dict[str, LocalAgent] = {}
        self.ended: dict[str, LocalAgent] = {}
        self.dead: list[LocalAgent] = []
        self._changed: dict[str, LocalAgent] = {}
        self._by_pid: dict[int, LocalAgent] = {}
        self._run_dir = run_dir
        self._selector = selector

    def expect(self, spec: AgentSpec, zygote: str) -> None:
        """Note an agent that is about to be born by ``zygote``."""
        self.living[spec.agent_id] = self._local(spec.agent_id, spec, zygote)

    def find(self, agent_id: str) -> LocalAgent | None:
        """Return the agent if it lives or is expected, also where only its lock file tells."""
        if agent_id not in self.living:
            process = self._holder(agent_id)
            if process is not None:
                self._adopt(agent_id, process)
        return self.living.get(agent_id)

    def unborn(self, patience_seconds: float) -> list[LocalAgent]:
        """Return those that were asked for so long ago and still have no process; one whose birth was only not told is
        followed.
        """
        found = []
        before = time.monotonic() - patience_seconds
        for agent in self.living.values():
            if agent.process is None and agent.since < before:
                process = self._holder(agent.agent_id)
                if process is None:
                    found.append(agent)
                else:
                    self.follow(agent.agent_id, process)
        return found

    def take_changed(self) -> list[LocalAgent]:
        """Return those that live and got a process, or became ready, since the last call."""
        changed, self._changed = self._changed, {}
        return [agent for agent in changed.values() if not agent.dead]

    def take_dead(self) -> list[LocalAgent]:
        """Return the dead since the last call."""
        dead, self.dead = self.dead, []
        return dead

    def follow(self, agent_id: str, process: ProcessId, *, reaped_here: bool = False) -> None:
        """Watch a process that is an agent of ours."""
        agent = self.living.get(agent_id)
        if agent is None:
            process.send(signal.SIGKILL)  # it was given up before it was born
            return
        if agent.process is not None:
            return  # the lock is taken by the one that is followed already, so this one ends by itself
        agent.process, agent.reaped_here = process, reaped_here
        self._by_pid[process.pid] = self._changed[agent_id] = agent
        agent.exit_descriptor = exit_descriptor(process.pid)
        if agent.exit_descriptor is not None:
            self._selector.register(agent.exit_descriptor, selectors.EVENT_READ, agent)
        elif not process.alive:
            self.note_death(agent)
        if agent.wish is not None:
            process.send(agent.wish)

    def _adopt(self, agent_id: str, process: ProcessId) -> None:
        """Follow a process that is known by its lock file."""
        self.ended.pop(agent_id, None)
        agent = self.living[agent_id] = self._local(agent_id)
        agent.ready = True
        self.follow(agent_id, process)

    def find_survivors(self) -> None:
        """Follow every agent that an earlier host of this machine left running, or left to be born after we looked.

        Those whose files it left are told as ended: it may not have lived to tell of them.
        """
        for path in self._run_dir.glob("*.lock"):
            if path.stem in self.living or path.stem in self.ended:
                continue
            if self.find(path.stem) is not None:
                log.info("an agent of before still runs", extra={"agent_id": path.stem})
            elif was_held(path):
                self.note_death(self._local(path.stem))

    def note_ready(self, agent_id: str) -> None:
        """Note that an agent consumes."""
        agent = self.living.get(agent_id)
        if agent is None:
            return
        # On a busy machine it is ready before its zygote came to tell of its birth.
        process = None if agent.process else self._holder(agent_id)
        if process is not None:
            self.follow(agent_id, process, reaped_here=True)
        agent.ready = True
        self._changed[agent_id] = agent

    def note_exit(self, pid: int, code: int) -> None:
        """Note an exit code. The exit descriptor may have told of that death before."""
        dead = (agent for agent in self.dead if agent.process is not None and agent.process.pid == pid)
        agent = self._by_pid.get(pid) or next(dead, None)
        if agent is not None:
            agent.code = code
            self.note_death(agent)

    def note_death(self, agent: LocalAgent) -> None:
        """Note that an agent is gone."""
        if agent.dead:
            return
        if self.living.get(agent.agent_id) is agent:
            del self.living[agent.agent_id]
        self.ended[agent.agent_id] = agent
        self._unwatch(agent)
        if agent.process is not None:
            self._by_pid.pop(agent.process.pid, None)
        agent.dead = True
        self.dead.append(agent)

    def _unwatch(self, agent: LocalAgent) -> None:
        if agent.exit_descriptor is not None:
            self._selector.unregister(agent.exit_descriptor)
            os.close(agent.exit_descriptor)
            agent.exit_descriptor = None

    def note_unseen_deaths(self) -> None:
        """Ask after those that have no exit descriptor, where the system has none."""
        for agent in list(self.living.values()):
            if agent.exit_descriptor is None and agent.process is not None and not agent.process.alive:
                self.note_death(agent)

    def fail_unborn(self, zygote: str | None, error: str) -> None:
        """Give up the agents that a zygote was to start; one that it did start without telling is followed."""
        for agent in [one for one in self.living.values() if one.zygote == zygote and one.process is None]:
            process = self._holder(agent.agent_id)
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
        for agent in list(self.dead):
            process = self._holder(agent.agent_id)
            if process is not None and process != agent.process and process.alive:
                self.dead.remove(agent)
                self._adopt(agent.agent_id, process)

    def forget(self, agent_ids: Sequence[str]) -> None:
        """Delete what dead agents leave on the disk, and tell of them no more."""
        for agent_id in agent_ids:
            if agent_id not in self.living:
                agent = self.ended.pop(agent_id, None)
                if agent in self.dead:
                    self.dead.remove(agent)
                drain_marker(self._run_dir, agent_id).unlink(missing_ok=True)
                lock_path(self._run_dir, agent_id).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete the files of agents that nobody knows and that are dead for long: they were given up."""
        dead = {agent.agent_id for agent in self.dead}
        for path in self._run_dir.glob("*.lock"):
            with suppress(FileNotFoundError):
                unknown = path.stem not in self.living and path.stem not in dead
                # One that is just being born has made its file, and not locked it yet.
                if unknown and time.time() - path.stat().st_mtime > _BIRTH_SECONDS and self._holder(path.stem) is None:
                    self.forget([path.stem])

    def close(self) -> None:
        """Watch none of them any more."""
        for agent in self.living.values():
            self._unwatch(agent)

    def _holder(self, agent_id: str) -> ProcessId | None:
        """Return the process that is the agent, if there is one."""
        return holder(lock_path(self._run_dir, agent_id))

    def _local(self, agent_id: str, spec: AgentSpec | None = None, zygote: str = "") -> LocalAgent:
        return LocalAgent(agent_id, drain_marker(self._run_dir, agent_id), time.monotonic(), spec, zygote)
