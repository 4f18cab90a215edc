"""The host: supervises the agents of one engine, and makes what the rows want true there.

It claims pending agents, has its driver start them, notices every death at once, returns what the dead held to the
queue, drains and stops on request, and after its own death finds what still runs. It knows the rows only through its
Desk and the engine only through its Driver, and decides nothing: who is to run is planned elsewhere.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from brain_clusters.errors import BrainError, LeaseLost, TemporaryError
from brain_clusters.genesis.desk import Desk
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.reporter import Reporter
from brain_clusters.genesis.roster import Roster
from brain_clusters.genesis.steward import Steward
from brain_clusters.processes import wake_pipe

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# While an agent starts whose engine cannot tell that it consumes, its first beat is looked for so often.
_BEAT_LOOK_SECONDS = 0.1
_HOST_BEAT_SECONDS = 2.0
# How long a host that ends tries to kill the last agents, and to report the last deaths.
_KILLING_SECONDS = 30.0
_TELLING_SECONDS = 5.0


class Host:
    """Runs until ``stop`` or ``abandon`` is called, usually by a signal handler. capacity: the most agents."""

    def __init__(self, desk: Desk, driver: Driver, *, capacity: int) -> None:
        self._desk = desk
        self._driver = driver
        self._capacity = capacity
        self._roster = Roster()
        self._steward = Steward(desk, driver, self._roster)
        self._reporter = Reporter(desk, driver, self._roster)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = wake_pipe()
        self._listening = -1
        self._next_beat = 0.0
        self._look_now = True
        self._stopping: float | None = None
        self._abandoned = False
        self._lost: LeaseLost | None = None
        self._grace = 0.0
        self._memory: Mapping[str, int] = {}

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
        """Be the host. Raises PermanentError when its engine can never be used.

        Raises LeaseLost when another process is the host by now: it has left all agents as they are then.
        """
        self._selector.register(self._wake_read, selectors.EVENT_READ, "wake")
        self._open()
        # What it does not own any more goes before anything else is done.
        if not self._done():
            self._attempt(self._compare)
        next_look = 0.0
        while not self._done():
            now = time.monotonic()
            if self._look_now or now >= next_look:
                self._look_now, next_look = False, now + _LOOK_SECONDS
                self._look()
            self._attempt(self._see)
            self._attempt(self._reporter.tell)
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + _HOST_BEAT_SECONDS
                self._attempt(self._beat)
                self._attempt(self._upkeep)
            # What could not be told waits for the next round; with Redis or PostgreSQL away that is a second.
            self._wait(max(0.0, next_look - time.monotonic()))
        self._end()
        if self._lost is not None:
            raise self._lost

    def _open(self) -> None:
        """Open the driver. An engine that does not answer is waited for, and its agents keep their host meanwhile."""
        while not self._done():
            try:
                self._driver.open()
            except TemporaryError as exc:
                log.warning("waiting: %s", exc)
                self._attempt(self._beat)
                self._wait(min(exc.delay_seconds, _HOST_BEAT_SECONDS))
            else:
                self._selector.register(self._driver.fileno(), selectors.EVENT_READ, "engine")
                self._attempt(lambda: self._roster.note(self._driver.sight()))
                return

    def _beat(self) -> None:
        # Whatever its engine and PostgreSQL do: Redis has to hear that it lives, as agents leave a host that is silent.
        self._desk.beat(self._memory)

    def _upkeep(self) -> None:
        warm = None
        if self._stopping is None:
            with suppress(TemporaryError):
                warm = self._desk.warm()[: self._capacity]
        self._memory = self._driver.upkeep(warm)

    def _done(self) -> bool:
        if self._abandoned or self._stopping is None or self._roster.living:
            return self._abandoned
        # With the servers gone nobody can be told of the dead; the next host sees that they are.
        return not self._roster.dead or self._late() > _TELLING_SECONDS

    def _late(self) -> float:
        """Return how long ago the grace of a host that stops was over; negative while it is not."""
        return time.monotonic() - (self._stopping or 0.0) - self._grace

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except TemporaryError as exc:
            log.warning("waiting: %s", exc)
        except LeaseLost as exc:
            self._lost, self._abandoned = exc, True
        except BrainError:
            log.exception("a look failed; the next one comes in a moment")

    # --- what happens -------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._listen()
        if self._roster.unheard:
            seconds = min(seconds, _BEAT_LOOK_SECONDS)
        for key, _ in self._selector.select(seconds):
            if key.data == "rows":
                self._attempt(self._desk.clear)
                self._look_now = True
            elif key.data == "wake":
                os.read(self._wake_read, 100)
                self._look_now = True

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

    def _see(self) -> None:
        self._roster.note(self._driver.changes())

    # --- what is done -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare the rows with the engine and act on every difference."""
        if self._stopping is not None:
            self._attempt(self._answer)
            self._attempt(self._check_lease)
            if not self._abandoned:
                self._attempt(self._let_all_leave)
            # An engine that does not answer keeps agents from ending; the next host finds them.
            self._abandoned |= self._late() > _KILLING_SECONDS
            return
        # New agents first: somebody may be waiting for them.
        self._attempt(self._take_new)
        self._attempt(self._compare)
        self._attempt(self._answer)

    def _take_new(self) -> None:
        room = self._capacity - len(self._roster.living)
        # While its engine does not answer, a host leaves agents to others.
        if room > 0 and not self._steward.start_failed:
            self._steward.start(self._desk.claim(room))

    def _compare(self) -> None:
        wanted = {row.spec.agent_id: row for row in self._desk.wanted()}
        self._see()
        self._steward.make_true(wanted)

    def _answer(self) -> None:
        """Show logs to those who asked; an engine that does not answer keeps them from none but this."""
        for asked in self._desk.asked():
            try:
                text, why = self._driver.logs(asked.agent_id, asked.lines), None
            except BrainError as exc:
                text, why = None, str(exc)
            self._desk.tell_log(asked, text, why)

    def _check_lease(self) -> None:
        """Ask the desk for anything: the agents may be another's by now."""
        self._desk.wanted()

    def _let_all_leave(self) -> None:
        self._see()
        self._steward.stop(list(self._roster.living))
        if self._late() > 0:
            self._steward.kill(list(self._roster.living))

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._driver.close()
        if not self._abandoned:
            self._attempt(self._desk.leave)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
