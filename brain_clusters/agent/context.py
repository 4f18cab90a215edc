"""What a handler is told besides its payload, and what it can say while it works."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brain_clusters.agent.delegation import Delegation, Team
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.memory import memory_of
from brain_clusters.agent.usage import Usage
from brain_clusters.broker.notes import CHECKPOINT_FIELD, PROGRESS_FIELD, JobNotes
from brain_clusters.broker.shared import ClusterStore
from brain_clusters.errors import TemporaryError

if TYPE_CHECKING:
    from brain_clusters.agent.flight import Flight

CHECKPOINT_LIMIT_BYTES = 1024 * 1024
_MESSAGE_CHARACTERS = 500
_PROGRESS_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class JobContext:
    """One attempt of a job. attempt counts deliveries from 1; config is the group's own.

    log: its lines carry the job's id. capability: what the job asked for, where it was addressed by that.
    deadline: when this attempt has to be done, in seconds since the epoch; None is never.
    root_id: the job that its tree of jobs began with; None is this one. usage: what it has used so far.
    notes: where progress and checkpoints are kept; without it they are forgotten. flight: how it is stopped.
    store: the cluster's memory, where its blueprint has one. team: who reports to the group, and what came from them.
    """

    job_id: str
    attempt: int
    cluster_id: str
    group: str
    agent_id: str
    config: Mapping[str, Any]
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    capability: str | None = None
    deadline: float | None = None
    notes: JobNotes | None = None
    store: ClusterStore | None = None
    team: Team | None = None
    root_id: str | None = None
    usage: Usage = field(default_factory=Usage)
    flight: Flight | None = field(default=None, init=False)
    _told_at: float = field(default=-math.inf, init=False)

    @property
    def cancelled(self) -> bool:
        """Whether the handler should end: the job was cancelled, or the deadline has passed."""
        return self.flight is not None and self.flight.reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled or JobTimeout when the handler should end."""
        if self.flight is not None:
            self.flight.check()

    def undisturbed(self) -> AbstractContextManager[None]:
        """Put off JobTimeout and JobCancelled to the end of a with statement, for what must not be left half done."""
        return nullcontext() if self.flight is None else self.flight.undisturbed()

    @property
    def memory(self) -> ClusterStore:
        """What the cluster's agents keep in common: get, set, delete, incr, keys, items. See ``resources.memory``."""
        return memory_of(self.store)

    @property
    def results(self) -> list[dict[str, Any]] | None:
        """What became of the jobs that this one handed down, in the order of their payloads; None at the first call.

        Each is {"id", "status", "result", "error"}. status: succeeded, failed, dead or cancelled.
        """
        return None if self.team is None else self.team.results

    @property
    def state(self) -> Any:
        """What was given to ``delegate`` as the state."""
        return None if self.team is None else self.team.state

    def delegate(
        self, to: str, payloads: Iterable[Any], *, state: Any = None, timeout: float | str | None = None,
        max_attempts: int | None = None, priority: str | None = None,
    ) -> Delegation:  # fmt: skip
        """Return what the handler has to return to hand one job a payload down, and to be called again after them.

        to: a group that reports to this one, or a capability that one of them offers. state: JSON that
        ``context.state`` returns then. timeout, max_attempts: of the jobs; priority: by default this job's own. Add
        several up to hand down to several: ``return context.delegate(...) + context.delegate(...)``.
        """
        if self.team is None:
            raise HandlerError("only a job that an agent was given can hand work down")
        return self.team.delegate(
            to, payloads, state=state, timeout=timeout, max_attempts=max_attempts, priority=priority
        )

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the job is, from 0 to 1. May be called often: it is written at most twice a second."""
        fraction = float(fraction)
        if not 0 <= fraction <= 1:
            raise HandlerError(f"progress is a number from 0 to 1, and was {fraction:g}")
        now = time.monotonic()
        if self.notes is None or (now - self._told_at < _PROGRESS_SECONDS and fraction < 1):
            return
        self._told_at = now
        note = {"fraction": fraction, "message": message and str(message)[:_MESSAGE_CHARACTERS], "at": time.time()}
        try:
            with self.undisturbed():
                self.notes.write(self.job_id, PROGRESS_FIELD, json.dumps(note))
        except TemporaryError as exc:  # of no use later; the job goes on
            self.log.warning("progress was not written: %s", exc)

    def checkpoint(self, value: Any) -> None:
        """Keep ``value``, JSON of at most 1 MiB, for the attempt that follows if this one fails or its agent dies.

        Raises HandlerError for what cannot be kept and TemporaryError when Redis is away.
        """
        text = as_json(value, "checkpoint", CHECKPOINT_LIMIT_BYTES)
        if self.notes is not None:
            with self.undisturbed():
                self.notes.write(self.job_id, CHECKPOINT_FIELD, text)

    @property
    def restored(self) -> Any:
        """The last checkpoint of this job, or None. Read from Redis each time."""
        with self.undisturbed():
            return None if self.notes is None else self.notes.read(self.job_id, CHECKPOINT_FIELD)


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines have the job's id, from whichever thread they come."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add the id to what the line is about."""
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


def as_json(value: Any, what: str, limit_bytes: int) -> str:
    """Return ``value`` as JSON; raise HandlerError that says what is wrong with it, or that it is too large."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise HandlerError(f"the {what} is not JSON: {exc}") from exc
    if len(text) > limit_bytes:
        raise HandlerError(f"the {what} is {len(text)} bytes of JSON; the limit is {limit_bytes}")
    return text
