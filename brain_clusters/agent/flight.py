"""One job in flight, and the ways to stop what it runs.

Python's way to raise something in another thread knows no places where that must not happen. So each job has one lock:
who stops it and who leaves its handler both take it, something is raised at most once, and what was raised and has not
come yet is taken back on leaving.
"""

from __future__ import annotations

import ctypes
import math
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any, Protocol

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import JobCancelled, JobTimeout

# Interrupts the system call that the main thread waits in; only there does Python then look what was raised.
WAKE_SIGNAL = signal.SIGUSR2


def allow_waking() -> None:
    """Let ``WAKE_SIGNAL`` interrupt what the main thread waits in. Call it there."""
    signal.signal(WAKE_SIGNAL, lambda *_: None)


Reason = type[JobTimeout] | type[JobCancelled]


class Stopper(Protocol):
    """A way to stop what a handler runs. patience: seconds between ``ask`` and ``stop`` at a deadline."""

    @property
    def patience(self) -> float: ...  # noqa: D102
    def ask(self) -> None:
        """It should end. Called once, from the watch's thread, and must not block."""

    def stop(self, reason: Reason) -> None:
        """It has to end now. Called once, from the watch's thread, and must not block."""


class ThreadStopper:
    """Raises in the thread that made it, which runs Python code."""

    patience = 0.0

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._wakes = self._ident == threading.main_thread().ident and callable(signal.getsignal(WAKE_SIGNAL))

    def ask(self) -> None:
        """The handler may look at ``context.cancelled``."""

    def stop(self, reason: Reason) -> None:
        """Raise ``reason`` there."""
        self._raise(reason)
        if self._wakes:
            signal.pthread_kill(self._ident, WAKE_SIGNAL)

    def take_back(self) -> None:
        """Take back what was raised and has not come yet."""
        self._raise(None)

    def _raise(self, reason: Reason | None) -> None:
        given = None if reason is None else ctypes.py_object(reason)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), given)


class GreenletStopper:
    """Raises in the greenlet that made it, when that next waits: there is no way to interrupt one that computes."""

    patience = 0.0

    def __init__(self) -> None:
        import gevent

        self._greenlet: Any = gevent.getcurrent()
        self._loop: Any = gevent.get_hub().loop
        self._reason: Reason | None = None

    def ask(self) -> None:
        """The handler may look at ``context.cancelled``."""

    def stop(self, reason: Reason) -> None:
        """Raise ``reason`` there."""
        self._reason = reason
        self._loop.run_callback(self._throw)

    def take_back(self) -> None:
        """Take back what was raised and has not come yet."""
        self._reason = None

    def _throw(self) -> None:
        reason, self._reason = self._reason, None
        if reason is not None:
            self._greenlet.throw(reason)


class _Later:
    """Stops nothing: what was to be raised is raised on leaving the section that must not be disturbed."""

    patience = 0.0

    def ask(self) -> None:
        """Nothing."""

    def stop(self, reason: Reason) -> None:
        """Nothing."""


def own_stopper() -> ThreadStopper | GreenletStopper:
    """Return the stopper of the running thread or greenlet."""
    return GreenletStopper() if runs_on_gevent() else ThreadStopper()


def runs_on_gevent() -> bool:
    """Whether gevent has taken the place of threads in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class Flight:
    """A job in flight. reason: why it has to end, once it has. next_step_at: when the watch has to act.

    Times are monotonic.
    """

    def __init__(self, context: JobContext, timeout: float | None) -> None:
        self.context = context
        self.timeout = timeout
        self.reason: Reason | None = None
        self.stopped = False
        self.landed = False
        self.deadline = math.inf if timeout is None else time.monotonic() + timeout
        self.next_step_at = self.deadline
        self._lock = threading.Lock()
        self._ident = threading.get_ident()
        self._own = own_stopper()
        self._stopper: Stopper = self._own
        context.flight = self

    @property
    def patience(self) -> float:
        """The seconds between ``ask`` and ``stop`` at a deadline."""
        return self._stopper.patience

    @property
    def message(self) -> str:
        """Why it has to end, in words."""
        if self.reason is JobCancelled:
            return "the job was cancelled while it ran"
        return f"the attempt took longer than {self.timeout:g} s"

    def ask(self, reason: Reason, grace: float) -> None:
        """Let the handler know that it should end; it is stopped after ``grace`` seconds."""
        with self._lock:
            if self.landed or self.reason is not None:
                return
            self.reason = reason
            self.next_step_at = time.monotonic() + max(grace, self._stopper.patience)
            self._stopper.ask()

    def stop(self, stuck_after: float) -> None:
        """Stop the handler; it counts as stuck after ``stuck_after`` seconds."""
        with self._lock:
            if self.landed or self.stopped or self.reason is None:
                return
            self.stopped = True
            self.next_step_at = time.monotonic() + stuck_after
            self._stopper.stop(self.reason)

    def dropped(self) -> None:
        """Have it stopped once more, if this thread is its own: what was raised here was dropped. Locks nothing."""
        if self._ident == threading.get_ident():
            self.next_step_at = time.monotonic()
            self.stopped = False

    def land(self) -> None:
        """Let nothing be raised any more: the handler's code was left. May be repeated."""
        with self._lock:
            self.landed = True
            self._own.take_back()

    def stopped_by(self, stopper: Stopper) -> StoppedBy:
        """Have ``stopper`` stop what runs in a with statement, instead of raising in this thread.

        On leaving it raises what would have been raised. In threads of the handler's own it does nothing.
        """
        return StoppedBy(self, stopper)

    def undisturbed(self) -> StoppedBy:
        """Let nothing be raised inside of a with statement, for what must not be left half done."""
        return StoppedBy(self, _Later())

    def check(self) -> None:
        """Raise the reason if the job has to end."""
        if self.reason is not None:
            raise self.reason(self.message)


class StoppedBy:
    """The with statement of ``Flight.stopped_by``. Its parts reach into the flight: they are its own."""

    def __init__(self, flight: Flight, stopper: Stopper) -> None:
        self._flight = flight
        self._stopper = stopper
        self._mine = threading.get_ident() == flight._ident

    def __enter__(self) -> None:
        flight = self._flight
        if not self._mine:
            return
        with flight._lock:
            self._before = flight._stopper
            if flight.stopped:
                flight._own.take_back()
            else:
                flight._stopper = self._stopper
                if flight.reason is not None:
                    self._stopper.ask()
                return
        flight.check()

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: TracebackType | None) -> None:
        flight = self._flight
        if not self._mine:
            return
        with flight._lock:
            flight._stopper = self._before
            stopped = flight.stopped and not flight.landed
        if stopped and not isinstance(exc, JobTimeout | JobCancelled):
            flight.check()
