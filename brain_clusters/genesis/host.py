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

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.genesis.process.desk import Desk, Wanted
from brain_clusters.genesis.process.local import LocalAgent, end_session, obituary, tidy_logs
from brain_clusters.genesis.process.nursery import Nursery
from brain_clusters.genesis.process.roster import Roster
from brain_clusters.processes import ProcessId, wake_pipe

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
        self._log_dir = log_dir
        self._selector = selectors.DefaultSelector()
        self._roster = Roster(run_dir, self._selector)
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
        self._roster.find_survivors()
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
                self._roster.find_survivors()
            if time.monotonic() >= self._next_tidy:
                self._next_tidy = time.monotonic() + _TIDY_SECONDS
                tidy_logs(self._log_dir, living=self._roster.living.keys())
            # What _tell could not say waits for the next round; with Redis or PostgreSQL away that is a second.
            self._wait(max(0.0, next_look - time.monotonic()))
        self._end()

    def _beat(self) -> None:
        self._desk.beat(self._nursery.memory())
        if self._stopping is None:
            self._nursery.keep(self._desk.warm()[: self._capacity])

    def _done(self) -> bool:
        if self._stopping is None or self._roster.living:
            return self._abandoned
        # With the servers gone nobody can be told of the dead; the next host sees that they are.
        patient = time.monotonic() - self._stopping < self._grace + _TELLING_SECONDS
        return self._abandoned or not (self._roster.dead and patient)

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
                self._roster.fail_unborn(handler, "the zygote that was to start it died; see zygote.log of its host")
            elif key.data == "rows":
                self._attempt(self._desk.clear)
                self._look_now = True
            elif key.data == "wake":
                os.read(self._wake_read, 100)
                self._look_now = True
            else:
                self._roster.note_death(key.data)
        self._roster.note_unseen_deaths()

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
                process = ProcessId(report["pid"], report["started"])
                self._roster.follow(report["agent"], process, reaped_here=True)
            elif kind == "ready":
                self._roster.note_ready(report["agent"])
            elif kind == "exited":
                self._roster.note_exit(report["pid"], report["code"])
            elif kind == "loaded":
                self._nursery.note_loaded(report["key"], report["pid"])
            elif kind == "unloadable":
                self._nursery.refuse(report["key"])
                self._roster.fail_unborn(report["key"], report["error"])

    # --- what is told -------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._take_reports()
        if self._roster.ready:
            ready, self._roster.ready = self._roster.ready, {}
            try:
                self._desk.ready(ready)
            except TemporaryError:
                self._roster.ready = {**ready, **self._roster.ready}
                raise
        if self._roster.dead:
            self._learn_codes()
            self._bury()

    def _learn_codes(self) -> None:
        """Wait for the exit codes of the dead, which their zygotes report a moment after the exit descriptors tell."""
        deadline = time.monotonic() + _CODE_SECONDS
        while any(agent.reaped_here and agent.code is None for agent in self._roster.dead):
            left = deadline - time.monotonic()
            if left <= 0 or not self._nursery.wait(left):
                return
            self._take_reports()

    def _bury(self) -> None:
        """Return what the dead held, then report them. In this order: a crash in between repeats both, harmlessly."""
        self._roster.bring_back()
        for agent in self._roster.dead:
            if agent.process is not None:
                end_session(agent.process.pid)
            self._desk.release(agent.agent_id)
        self._desk.ended([obituary(agent, self._log_dir) for agent in self._roster.dead])
        self._roster.bury()

    # --- what is done -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare the rows with the processes and act on every difference."""
        if self._stopping is not None:
            self._let_all_leave()
            return
        # New agents first: somebody may be waiting for them.
        room = self._capacity - len(self._roster.living)
        for spec in self._desk.claim(room) if room > 0 else ():
            self._spawn(spec)
        wanted = {row.spec.agent_id: row for row in self._desk.wanted()}
        buried = {agent.agent_id for agent in self._roster.dead}
        for row in wanted.values():
            if row.spec.agent_id not in buried:
                self._make_true(row)
        for agent_id in self._roster.living.keys() - wanted.keys():
            self._roster.living[agent_id].leave()

    def _make_true(self, row: Wanted) -> None:
        agent = self._roster.living.get(row.spec.agent_id)
        if agent is None:
            self._recover(row)
        elif row.draining:
            self._drain(agent, row)
        elif agent.process is None and time.monotonic() - agent.since > _SPAWN_PATIENCE_SECONDS:
            del self._roster.living[agent.agent_id]
            self._recover(row)
        else:
            agent.go_on()

    def _recover(self, row: Wanted) -> None:
        """Deal with a row of ours that no process of ours answers to: find it, start it, or report its end."""
        process = self._roster.holder(row.spec.agent_id)
        if process is not None:
            self._roster.adopt(row.spec.agent_id, process)
        elif row.draining or row.started:
            self._roster.note_lost(row.spec)
        else:
            # It may have run without anybody's knowledge, and have held a job when it ended.
            self._desk.release(row.spec.agent_id)
            self._spawn(row.spec)

    def _spawn(self, spec: AgentSpec) -> None:
        self._roster.expect(spec, self._nursery.loads_of(spec).key)
        self._nursery.spawn(spec)

    def _drain(self, agent: LocalAgent, row: Wanted) -> None:
        agent.drain()
        if row.kill_after is not None and row.draining_seconds > row.kill_after:
            agent.signal(signal.SIGKILL)

    def _let_all_leave(self) -> None:
        assert self._stopping is not None  # noqa: S101 - for the type checker
        late = time.monotonic() - self._stopping > self._grace
        for agent in list(self._roster.living.values()):
            agent.leave()
            if late:
                agent.signal(signal.SIGKILL)

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._nursery.close()
        if not self._abandoned:
            self._attempt(self._desk.leave)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
