"""The host: supervises the agents of one machine, and makes what the rows want true on it.

It claims pending agents, has zygotes fork them, notices every death at once, returns what the dead held to the
queue, drains and stops on request, and after its own death finds what still runs. It knows the rows only through
its Desk, and decides nothing: who is to run is planned elsewhere.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.genesis.process.desk import Desk, Wanted
from brain_clusters.genesis.process.local import (
    LocalAgent,
    end_session,
    exit_descriptor,
    holder,
    lock_path,
    obituary,
    tidy_logs,
)
from brain_clusters.genesis.process.nursery import Nursery
from brain_clusters.processes import ProcessId, drain_marker, wake_pipe

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_HOST_BEAT_SECONDS = 2.0
# An agent that was asked for and has no process by then is asked for again: its zygote died in between.
_SPAWN_PATIENCE_SECONDS = 30.0
# Zygotes reap within a millisecond or two. The code is only told to people, so a late one is not waited for.
_CODE_SECONDS = 0.1
# How long a host that ends tries to report the last deaths.
_TELLING_SECONDS = 5.0
_TIDY_SECONDS = 60.0


class Host:
    """Runs until ``stop`` or ``abandon`` is called, usually by a signal handler."""

    def __init__(self, desk: Desk, nursery: Nursery, *, capacity: int, run_dir: Path, log_dir: Path) -> None:
        self._desk = desk
        self._nursery = nursery
        self._capacity = capacity
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._agents: dict[str, LocalAgent] = {}
        self._by_pid: dict[int, LocalAgent] = {}
        self._ready: dict[str, dict[str, Any]] = {}
        self._dead: list[LocalAgent] = []
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = wake_pipe()
        self._listening = -1
        self._next_beat = 0.0
        self._next_tidy = 0.0
        self._look_now = True
        self._stopping: float | None = None
        self._abandoned = False
        self._grace = 0.0

    def stop(self, grace_seconds: float) -> None:
        """Drain every agent, kill those still busy after ``grace_seconds``, and end. A second call kills at once."""
        self._grace = 0.0 if self._stopping is not None else grace_seconds
        self._stopping = self._stopping or time.monotonic()
        self._poke()

    def abandon(self) -> None:
        """End and leave the agents running for the next host."""
        self._abandoned = True
        self._poke()

    def _poke(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Be the host."""
        self._selector.register(self._wake_read, selectors.EVENT_READ, "wake")
        self._nursery.attach(self._selector)
        self._nursery.warm()
        self._find_survivors()
        next_look = 0.0
        while not self._done():
            now = time.monotonic()
            if self._look_now or now >= next_look:
                self._look_now, next_look = False, now + _LOOK_SECONDS
                self._attempt(self._look)
            self._attempt(self._tell)
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + _HOST_BEAT_SECONDS
                self._attempt(self._beat)
                self._nursery.retire_idle()
                self._find_survivors()
            if time.monotonic() >= self._next_tidy:
                self._next_tidy = time.monotonic() + _TIDY_SECONDS
                tidy_logs(self._log_dir, living=self._agents.keys())
            # What _tell could not say waits for the next round; with Redis or PostgreSQL away that is a second.
            self._wait(max(0.0, next_look - time.monotonic()))
        self._end()

    def _beat(self) -> None:
        self._desk.beat(self._nursery.memory())
        if self._stopping is None:
            self._nursery.keep(self._desk.warm()[: self._capacity])

    def _done(self) -> bool:
        if self._stopping is None or self._agents:
            return self._abandoned
        # With the servers gone nobody can be told of the dead; the next host sees that they are.
        patient = time.monotonic() - self._stopping < self._grace + _TELLING_SECONDS
        return self._abandoned or not (self._dead and patient)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except TemporaryError as exc:
            log.warning("waiting: %s", exc)
        except BrainError:
            log.exception("a look failed; the next one comes in a moment")

    # --- what happens -------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._listen()
        for key, _ in self._selector.select(seconds):
            if key.data == "report":
                self._take_reports()
            elif key.data == "zygote":
                handler = self._nursery.bury_dead(key.fileobj)
                self._take_reports()
                self._fail_unborn(handler, "the zygote that was to start it died; see zygote.log of its host")
            elif key.data == "rows":
                self._attempt(self._desk.clear)
                self._look_now = True
            elif key.data == "wake":
                os.read(self._wake_read, 100)
                self._look_now = True
            else:
                self._note_death(key.data)
        for agent in list(self._agents.values()):  # where there are no exit descriptors, ask
            if agent.exit_descriptor is None and agent.process is not None and not agent.process.alive:
                self._note_death(agent)

    def _listen(self) -> None:
        """Follow the desk's descriptor, which changes when its connection is made anew."""
        descriptor = self._desk.fileno()
        if descriptor == self._listening:
            return
        if self._listening >= 0:
            with suppress(KeyError, ValueError):
                self._selector.unregister(self._listening)
        if descriptor >= 0:
            self._selector.register(descriptor, selectors.EVENT_READ, "rows")
        self._listening = descriptor

    def _take_reports(self) -> None:
        for report in self._nursery.reports():
            kind = report["is"]
            if kind == "spawned":
                self._follow(report["agent"], ProcessId(report["pid"], report["started"]), reaped_here=True)
            elif kind == "ready" and (agent := self._agents.get(report["agent"])):
                self._catch_up(agent)
                agent.ready = True
                self._ready[agent.agent_id] = self._handle(agent)
            elif kind == "exited" and (agent := self._of_pid(report["pid"])):
                agent.code = report["code"]
                self._note_death(agent)
            elif kind == "loaded":
                self._nursery.note_loaded(report["key"], report["pid"])
            elif kind == "unloadable":
                self._nursery.refuse(report["key"])
                self._fail_unborn(report["key"], report["error"])

    def _catch_up(self, agent: LocalAgent) -> None:
        """Follow an agent that is ready before its zygote, on a busy machine, came to tell of its birth."""
        process = None if agent.process else holder(lock_path(self._run_dir, agent.agent_id))
        if process is not None:
            self._follow(agent.agent_id, process, reaped_here=True)

    def _of_pid(self, pid: int) -> LocalAgent | None:
        """Return the agent that has or had ``pid``: its exit descriptor may have told of its death before."""
        dead = (agent for agent in self._dead if agent.process is not None and agent.process.pid == pid)
        return self._by_pid.get(pid) or next(dead, None)

    def _handle(self, agent: LocalAgent) -> dict[str, Any]:
        process = agent.process
        return {"pid": process.pid, "started": process.started} if process else {}

    def _follow(self, agent_id: str, process: ProcessId, *, reaped_here: bool = False) -> None:
        """Watch a process that is an agent of ours."""
        agent = self._agents.get(agent_id)
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
            self._note_death(agent)

    def _fail_unborn(self, handler: str | None, error: str) -> None:
        """Give up the agents that a zygote was to start; one that it did start without telling is followed."""
        for agent in [one for one in self._agents.values() if one.handler == handler and one.process is None]:
            process = holder(lock_path(self._run_dir, agent.agent_id))
            if process is not None:
                self._follow(agent.agent_id, process)
            else:
                agent.error = error
                self._note_death(agent)

    def _note_death(self, agent: LocalAgent) -> None:
        if self._agents.pop(agent.agent_id, None) is None:
            return
        if agent.exit_descriptor is not None:
            self._selector.unregister(agent.exit_descriptor)
            os.close(agent.exit_descriptor)
            agent.exit_descriptor = None
        if agent.process is not None:
            self._by_pid.pop(agent.process.pid, None)
        self._ready.pop(agent.agent_id, None)
        self._dead.append(agent)

    # --- what is told -------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._take_reports()
        if self._ready:
            ready, self._ready = self._ready, {}
            try:
                self._desk.ready(ready)
            except TemporaryError:
                self._ready = {**ready, **self._ready}
                raise
        if self._dead:
            self._learn_codes()
            self._bury()

    def _learn_codes(self) -> None:
        """Wait for the exit codes of the dead, which their zygotes report a moment after the exit descriptors tell."""
        deadline = time.monotonic() + _CODE_SECONDS
        while any(agent.reaped_here and agent.code is None for agent in self._dead):
            left = deadline - time.monotonic()
            if left <= 0 or not self._nursery.wait(left):
                return
            self._take_reports()

    def _bury(self) -> None:
        """Return what the dead held, then report them. In this order: a crash in between repeats both, harmlessly."""
        self._dead = [agent for agent in self._dead if not self._lives_on(agent)]
        for agent in self._dead:
            if agent.process is not None:
                end_session(agent.process.pid)
            self._desk.release(agent.agent_id)
        self._desk.ended([obituary(agent, self._log_dir) for agent in self._dead])
        for agent in self._dead:
            agent.marker.unlink(missing_ok=True)
            lock_path(self._run_dir, agent.agent_id).unlink(missing_ok=True)
        self._dead.clear()

    def _lives_on(self, agent: LocalAgent) -> bool:
        """Follow the process that holds the lock of a dead one, if there is one; return whether there is.

        A host that was killed may leave a child that has not locked its file yet. Its successor sees no process and
        starts the agent again, and the second of the two finds the lock taken and ends: the agent lives.
        """
        process = holder(lock_path(self._run_dir, agent.agent_id))
        if process is None or process == agent.process or not process.alive:
            return False
        self._adopt(agent.agent_id, process)
        return True

    # --- what is done -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare the rows with the processes and act on every difference."""
        if self._stopping is not None:
            self._let_all_leave()
            return
        # New agents first: somebody may be waiting for them.
        room = self._capacity - len(self._agents)
        for spec in self._desk.claim(room) if room > 0 else ():
            self._spawn(spec)
        wanted = {row.spec.agent_id: row for row in self._desk.wanted()}
        buried = {agent.agent_id for agent in self._dead}
        for row in wanted.values():
            if row.spec.agent_id not in buried:
                self._make_true(row)
        for agent_id in self._agents.keys() - wanted.keys():
            self._agents[agent_id].leave()

    def _make_true(self, row: Wanted) -> None:
        agent = self._agents.get(row.spec.agent_id)
        if agent is None:
            self._recover(row)
        elif row.draining:
            self._drain(agent, row)
        elif agent.process is None and time.monotonic() - agent.since > _SPAWN_PATIENCE_SECONDS:
            del self._agents[agent.agent_id]
            self._recover(row)
        else:
            agent.go_on()

    def _recover(self, row: Wanted) -> None:
        """Deal with a row of ours that no process of ours answers to: find it, start it, or report its end."""
        process = holder(lock_path(self._run_dir, row.spec.agent_id))
        if process is not None:
            self._adopt(row.spec.agent_id, process)
        elif row.draining or row.started:
            # It ended with an earlier host, which is not its fault: as if it had been asked to leave.
            agent = self._local(row.spec)
            agent.asked_to_leave_at = time.monotonic()
            self._dead.append(agent)
        else:
            # It may have run without anybody's knowledge, and have held a job when it ended.
            self._desk.release(row.spec.agent_id)
            self._spawn(row.spec)

    def _local(self, spec: AgentSpec) -> LocalAgent:
        marker = drain_marker(self._run_dir, spec.agent_id)
        return LocalAgent(spec.agent_id, self._nursery.loads_of(spec).key, time.monotonic(), marker)

    def _spawn(self, spec: AgentSpec) -> None:
        self._agents[spec.agent_id] = self._local(spec)
        self._nursery.spawn(spec)

    def _drain(self, agent: LocalAgent, row: Wanted) -> None:
        agent.drain()
        if row.kill_after is not None and row.draining_seconds > row.kill_after:
            agent.signal(signal.SIGKILL)

    def _let_all_leave(self) -> None:
        assert self._stopping is not None  # noqa: S101 - for the type checker
        late = time.monotonic() - self._stopping > self._grace
        for agent in list(self._agents.values()):
            agent.leave()
            if late:
                agent.signal(signal.SIGKILL)

    # --- the beginning and the end ------------------------------------------------------------------------------

    def _find_survivors(self) -> None:
        """Follow every agent that an earlier host of this machine left running, or left to be born after we looked."""
        known = self._agents.keys() | {agent.agent_id for agent in self._dead}
        found = {path.stem: holder(path) for path in self._run_dir.glob("*.lock") if path.stem not in known}
        for agent_id, process in found.items():
            if process is not None:
                self._adopt(agent_id, process)
        if any(found.values()):
            log.info("found %d agents that still run", sum(process is not None for process in found.values()))

    def _adopt(self, agent_id: str, process: ProcessId) -> None:
        """Follow a process that is known by its lock file. An earlier host may have told it to drain, or to go on."""
        marker = drain_marker(self._run_dir, agent_id)
        self._agents[agent_id] = LocalAgent(agent_id, "", time.monotonic(), marker, ready=True, drains=None)
        self._ready[agent_id] = {"pid": process.pid, "started": process.started}
        self._follow(agent_id, process)

    def _end(self) -> None:
        self._nursery.close()
        if not self._abandoned:
            self._attempt(self._desk.leave)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
