"""Whether a job is begun, and what follows when an attempt fails: pure rules over its options and its group's.

``max_attempts`` bounds raising and dying together. Where neither the job nor the group states it, one attempt may
raise, ``max_deliveries`` agents may die, and a handler that asks for it by ``Retry`` gets three attempts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from brain_clusters.broker.jobs import Delivery
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.jobs import JobOptions
from brain_clusters.domain.states import JobStatus

_RETRIES_ASKED_FOR = 3
# Doubled more often than that, the wait is at its bound in any case.
_MOST_DOUBLINGS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one delivery of a job ended. again: in how many seconds it is tried again; then its status is queued."""

    status: JobStatus
    result: Any = None
    error: dict[str, Any] | None = None
    again: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery of a job, and what was asked for it."""

    delivery: Delivery
    options: JobOptions
    spec: AgentSpec

    def refusal(self, now: float) -> Outcome | None:
        """Return the outcome of a job that is not to be begun at ``now``, or None for one that is."""
        if self.delivery.cancelled:
            return _over(JobStatus.CANCELLED, "JobCancelled", "cancelled before it was begun")
        if self._used_up():
            deaths = "an agent" if self.delivery.deaths == 1 else f"{self.delivery.deaths} agents"
            return _over(JobStatus.DEAD, "AgentDied", f"{deaths} died while they did this job; given up")
        expires = self.options.expires_at
        if expires is not None and expires <= now:
            return _over(JobStatus.FAILED, "Expired", f"its time passed {now - expires:.1f} s before it could be begun")
        return None

    def failed(self, error: dict[str, Any], jitter: float) -> Outcome:
        """Return what follows when it raised. jitter: the share of the back-off that is waited."""
        return self._again(error, self._stated or 1, jitter * self._backoff())

    def put_off(self, error: dict[str, Any], after: object, jitter: float) -> Outcome:
        """Return what follows when the handler asked to be tried again, ``after`` seconds or its back-off later."""
        stated = isinstance(after, (int, float)) and math.isfinite(after)
        wait = max(0.0, float(after)) if stated else jitter * self._backoff()  # type: ignore[arg-type]
        return self._again(error, self._stated or _RETRIES_ASKED_FOR, wait)

    @property
    def timeout(self) -> float | None:
        """The longest that it may take, in seconds."""
        return self.options.timeout_seconds or self.spec.timeout_seconds

    @property
    def _stated(self) -> int | None:
        return self.options.max_attempts or self.spec.max_attempts

    def _used_up(self) -> bool:
        if self._stated is not None:
            return self.delivery.attempt > self._stated
        return self.delivery.deaths >= self.spec.max_deliveries

    def _again(self, error: dict[str, Any], limit: int, wait: float) -> Outcome:
        if self.delivery.attempt < limit:
            return Outcome(JobStatus.QUEUED, error=error, again=wait)
        return Outcome(JobStatus.DEAD if limit > 1 else JobStatus.FAILED, error=error)

    def _backoff(self) -> float:
        first, most = self.options.backoff_seconds, self.options.backoff_max_seconds
        first = self.spec.backoff_seconds if first is None else first
        most = self.spec.backoff_max_seconds if most is None else most
        return min(most, first * 2.0 ** min(self.delivery.attempt - 1, _MOST_DOUBLINGS))


def _over(status: JobStatus, kind: str, message: str) -> Outcome:
    return Outcome(status, error={"type": kind, "message": message})
