"""The watch over the jobs that run in this process: their deadlines, and whether somebody cancelled them.

It ends a job in three steps: ask (``context.cancelled`` turns true), stop (JobTimeout or JobCancelled is raised in the
handler), and, where that has no effect because the code is stuck, end: the process leaves at once, and its jobs go back
to their queues. Nothing is ever raised outside of the handler's own code.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from brain_clusters.agent.alarm import Alarm
from brain_clusters.agent.context import JobContext, JobLog
from brain_clusters.agent.errors import JobCancelled, JobTimeout
from brain_clusters.agent.flight import Flight
from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.broker.notes import LAST_WORDS_FIELD, JobNotes
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

# The agent, or the child of a prefork pool, ended itself because a job did not end in time.
EXIT_STUCK = 79
_LOOK_SECONDS = 1.0
# The alarm is put off each time the watch wakes, so it must be further away than that.
_SPARE_SECONDS = 2 * _LOOK_SECONDS
# When nobody says how long a cancelled job may go on.
_GRACE_SECONDS = 10.0


class Watch:
    """Watches from a thread of its own, begun with the first job. Make it after the fork.

    stuck_after: how long code has to heed what was raised in it, in seconds, before the process ends.
    """

    def __init__(self, client: redis.Redis, *, stuck_after: float = 5.0) -> None:
        self._client = client
        self._notes = JobNotes(client)
        self._stuck_after = stuck_after
        self._alarm = Alarm()
        self._flights: dict[int, Flight] = {}
        self._changed = threading.Condition()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def mind_finalizers(self) -> None:
        """Raise again what comes in a finalizer or a callback of the collector: Python drops what is raised in those.

        It goes through ``sys.unraisablehook``, of the whole process and for good.
        """
        before = sys.unraisablehook

        def hook(unraisable: sys.UnraisableHookArgs) -> None:
            if not issubclass(unraisable.exc_type, JobTimeout | JobCancelled):
                before(unraisable)
                return
            # Copied, as other threads fly; nothing is locked, as this may interrupt anything.
            for flight in self._flights.copy().values():
                flight.dropped()

        sys.unraisablehook = hook

    def context(
        self, spec: AgentSpec, job_id: str, attempt: int, capability: str | None, timeout: float | None
    ) -> JobContext:
        """Return what a handler is told of one attempt, which begins now."""
        return JobContext(
            job_id,
            attempt,
            spec.cluster_id,
            spec.group_name,
            spec.agent_id,
            spec.config,
            JobLog(logging.getLogger("job"), {"job_id": job_id}),
            capability,
            None if timeout is None else time.time() + timeout,
            self._notes,
        )

    def last_words(self, job_id: str, attempt: int) -> Any:
        """Return the error by which ``attempt`` took its agent along, or None."""
        found = self._notes.read(job_id, LAST_WORDS_FIELD)
        return found.get("error") if isinstance(found, dict) and found.get("attempt") == attempt else None

    def run(self, context: JobContext, timeout: float | None, call: Callable[[], Value]) -> Value:
        """Return what ``call`` returns. Raises JobTimeout after ``timeout`` seconds, JobCancelled when it is cancelled.

        Whatever else it raises once it was asked to end is taken for its way to heed that.
        """
        flight = Flight(context, timeout)
        try:
            try:
                self._enter(flight)
                return call()
            finally:
                self._land(flight)
        except BaseException as exc:
            # Once more: what was raised from outside may have hit the landing itself. It is raised but once.
            self._land(flight)
            if flight.reason is None:
                raise
            if isinstance(exc, flight.reason):
                exc.args = exc.args or (flight.message,)
                raise
            raise flight.reason(flight.message) from exc

    def _enter(self, flight: Flight) -> None:
        with self._changed:
            self._flights[id(flight)] = flight
            self._alarm.at_latest(self._last_moment(flight))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
                self._thread.start()
            elif flight.next_step_at < self._wakes_at:
                self._changed.notify()

    def _land(self, flight: Flight) -> None:
        flight.land()
        self._flights.pop(id(flight), None)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        look_at = time.monotonic() + _LOOK_SECONDS
        while True:
            try:
                flights = self._wait(look_at)
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _LOOK_SECONDS
                    self._look_for_cancelled(flights)
                for flight in flights:
                    self._step(flight)
            except Exception:  # whatever it is, jobs must not be left unwatched
                log.exception("the watch over jobs stumbled")
                time.sleep(_LOOK_SECONDS)

    def _wait(self, until: float) -> list[Flight]:
        """Wait until a step of some job is due, at most ``until``; return the jobs in flight."""
        with self._changed:
            flights = self._flights.copy().values()
            self._alarm.at(min(map(self._last_moment, flights), default=math.inf))
            self._wakes_at = min(until, *(flight.next_step_at for flight in flights), math.inf)
            self._changed.wait(max(0.0, self._wakes_at - time.monotonic()))
            return list(self._flights.copy().values())

    def _last_moment(self, flight: Flight) -> float:
        """Return when this watch itself would have ended the process, with time to spare."""
        return flight.deadline + flight.patience + 2 * self._stuck_after + _SPARE_SECONDS

    def _step(self, flight: Flight) -> None:
        if flight.next_step_at > time.monotonic():
            return
        if flight.reason is None:
            flight.ask(JobTimeout, 0.0)
        elif not flight.stopped:
            flight.stop(self._stuck_after)
        elif not flight.landed:
            self._end(flight)

    def _look_for_cancelled(self, flights: list[Flight]) -> None:
        asked = [flight for flight in flights if flight.reason is None]
        if not asked:
            return
        try:
            with temporary_when_away():
                found: Any = self._client.mget([names.cancel_key(flight.context.job_id) for flight in asked])
        except TemporaryError as exc:
            log.warning("who is cancelled is not known: %s", exc)
            return
        for flight, wish in zip(asked, found, strict=True):
            if wish is not None:
                flight.ask(JobCancelled, _grace(wish))

    def _end(self, flight: Flight) -> None:
        """End the process; its jobs go back to their queues, and the attempt counts."""
        log.critical("job %s heeds nothing: %s; leaving", flight.context.job_id, flight.message)
        if flight.reason is JobTimeout:
            error = {"type": "JobTimeout", "message": flight.message}
            words = json.dumps({"attempt": flight.context.attempt, "error": error})
            try:
                self._notes.write(flight.context.job_id, LAST_WORDS_FIELD, words)
            except TemporaryError as exc:
                log.warning("why was not recorded: %s", exc)
        os._exit(EXIT_STUCK)


def _grace(wish: bytes) -> float:
    """Return the seconds that a cancelled job may go on, as the key says."""
    try:
        return max(0.0, float(json.loads(wish)["grace"]))
    except (ValueError, KeyError, TypeError):
        return _GRACE_SECONDS
