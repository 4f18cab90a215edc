"""The job records that agents write and everyone reads: a hash per job, and a stream that names what was finished.

Times are seconds since the epoch by the writer's clock. Results and errors are JSON texts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import entries_of, replies, temporary_when_away
from brain_clusters.broker.record_scripts import AGAIN, BEGIN, CANCEL, FINISH, REVIVE
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, JobStatus
from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)

# A bound on a stream that nobody reads while PostgreSQL is away; at 0.1 KB an entry about 100 MB, and the records.
STREAM_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a job to an agent.

    attempt: its number from 1, or 0 when the job is finished and only its acknowledgement was lost. deaths: how many
    attempts before it ended with the death of their agent. cancelled: the job is not to be begun.
    tag, queue: of the message; "" where the message was not begun as it was delivered, and Celery acknowledges it.
    priority: "high", "normal" or "low". goes_on: those that the job handed down have ended.
    """

    attempt: int
    deaths: int = 0
    cancelled: bool = False
    tag: str = ""
    queue: str = ""
    priority: str = "normal"
    goes_on: bool = False

    @classmethod
    def from_header(cls, found: Any) -> Delivery | None:
        """Return what the transport wrote; its attempt is -1 where it did not count the delivery."""
        return None if found is None else cls(**found)


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job as its agent reported it."""

    id: str
    cluster_id: str
    group_name: str
    agent_id: str
    status: JobStatus
    attempts: int
    started_at: float | None
    finished_at: float | None
    result: Any = None
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class JobRecords:
    """Reads and writes job records."""

    def __init__(self, client: redis.Redis, *, ttl_seconds: int = 86_400) -> None:
        self.client = self._client = client
        self.ttl_seconds = self._ttl = ttl_seconds
        self._begin, self._finish, self._again = map(client.register_script, (BEGIN, FINISH, AGAIN))

    def begin(self, job_id: str, agent_id: str) -> Delivery:
        """Count a delivery that the transport did not count as it brought it."""
        with temporary_when_away():
            attempt, deaths, cancelled = self._begin(args=[job_id, agent_id, time.time(), self._ttl])
        if attempt < 0:
            raise TemporaryError(f"the record of job {job_id} cannot be written")
        return Delivery(attempt, deaths, bool(cancelled))

    def finish(self, report: JobReport, delivery: Delivery | None = None, *, parent_id: str | None = None) -> bool:
        """Record the outcome, announce it, and acknowledge the message, at once. The first outcome of a job counts.

        Return False, and record nothing, when this agent was given up, or another has the job by now.
        parent_id: the job that waits for this one.
        """
        tag = delivery.tag if delivery is not None else ""
        keys = [names.job_key(report.id), names.FINISHED_STREAM, *_of_owner(report.agent_id)]
        fixed: list[str | float] = [tag, self._ttl, STREAM_LIMIT, report.id, parent_id or ""]
        with temporary_when_away():
            return bool(self._finish(keys=keys, args=[*fixed, *_as_fields(report)]))

    def again(self, report: JobReport, delivery: Delivery, after: float) -> bool:
        """Record a failed attempt, and park the message for another in ``after`` seconds, at once.

        Return False when this agent was given up, or does not hold the message any more: then another agent has it.
        """
        unacked, fenced = _of_owner(report.agent_id)
        keys = [names.job_key(report.id), unacked, names.eta_key(delivery.queue), fenced]
        with temporary_when_away():
            return bool(self._again(keys=keys, args=[delivery.tag, self._ttl, after, *_as_fields(report)]))

    def cancel(self, job_ids: Sequence[str], grace_seconds: float) -> dict[str, JobStatus | None]:
        """Ask that jobs be cancelled; return how each stands, None where none was begun. What is finished stays so.

        From now on none of them is begun; one that runs has ``grace_seconds`` before it is ended hard.
        """
        asked = json.dumps({"at": time.time(), "grace": grace_seconds})
        with temporary_when_away():
            found: Any = self._client.eval(CANCEL, 0, json.dumps(list(job_ids)), asked, self._ttl)
        return dict(zip(job_ids, map(_status, found), strict=True))

    def revive(self, job_ids: Sequence[str]) -> dict[str, JobStatus | None]:
        """Forget finished jobs and that they were to be cancelled, so that they may be done anew.

        Returns how each stood: None where no agent met its message since its record began; one that runs still does.
        """
        with temporary_when_away():
            found: Any = self._client.eval(REVIVE, 0, json.dumps(list(job_ids)))
        return dict(zip(job_ids, map(_status, found), strict=True))

    def get(self, job_ids: Sequence[str]) -> dict[str, JobReport]:
        """Return the records of ``job_ids`` that there are."""
        with temporary_when_away():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hgetall(names.job_key(job_id))
            found = replies(pipe)
        reports = {job_id: _sound(job_id, entry) for job_id, entry in zip(job_ids, found, strict=True) if entry}
        return {job_id: report for job_id, report in reports.items() if report is not None}

    def held(self, reports: Iterable[JobReport]) -> set[str]:
        """Return the ids of those whose message the agent that began them holds, also one that no host looks after."""
        running = [report for report in reports if report.status is JobStatus.RUNNING]
        with temporary_when_away():
            pipe = self._client.pipeline(transaction=False)
            for report in running:
                pipe.hvals(names.unacked_key(report.agent_id))
            found = replies(pipe)
        return {
            report.id
            for report, entries in zip(running, found, strict=True)
            if any(report.id.encode() in entry for entry in entries or ())
        }

    def finished(self, limit: int) -> list[tuple[str, JobReport]]:
        """Return up to ``limit`` outcomes that nobody has stored yet, oldest first, each with its place.

        The stream names jobs, and their records tell: so a result is kept once. A record that makes no sense, or is
        of a job which is queued again by now, is left out and forgotten.
        """
        entries = entries_of(self._client, names.FINISHED_STREAM, limit)
        places = {place.decode(): entry.get(b"id", b"").decode(errors="replace") for place, entry in entries}
        reports = self.get(list(dict.fromkeys(places.values())))
        found = [(place, reports[job_id]) for place, job_id in places.items() if is_finished(reports.get(job_id))]
        sound = {place for place, _ in found}
        self.forget([place for place in places if place not in sound])  # or they would come again for ever
        return found

    def forget(self, places: Sequence[str]) -> None:
        """Remove stored outcomes from the stream."""
        with temporary_when_away():
            if places:
                self._client.xdel(names.FINISHED_STREAM, *places)


def _of_owner(agent_id: str) -> tuple[str, str]:
    """Return the keys of what an agent holds, and of the word that it was given up."""
    return names.unacked_key(agent_id), names.fenced_key(agent_id)


def _as_fields(report: JobReport) -> list[str]:
    """Return the record's fields and values in turn."""
    return [
        "cluster_id", report.cluster_id,
        "group_name", report.group_name,
        "agent_id", report.agent_id,
        "status", str(report.status),
        "attempts", str(report.attempts),
        "started_at", str(report.started_at or ""),
        "finished_at", str(report.finished_at or ""),
        "result", _dumps(report.result),
        "error", _dumps(report.error),
        "usage", _dumps(report.usage),
    ]  # fmt: skip


def _status(found: bytes) -> JobStatus | None:
    """Return a status; None for what is none, since users' code can write there."""
    try:
        return JobStatus(found.decode())
    except ValueError:
        return None


def _dumps(value: Any) -> str:
    return "" if value is None else json.dumps(value)


def _sound(job_id: str, entry: dict[bytes, bytes]) -> JobReport | None:
    """Return a report, or None for what makes no sense: agents run users' code, which can write here."""
    try:
        return _from_entry(job_id, entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        log.error("the record of a job makes no sense and is left out: %s: %s", type(exc).__name__, exc)
        return None


def _from_entry(job_id: str, entry: dict[bytes, bytes]) -> JobReport:
    def text(key: bytes) -> str:
        return entry.get(key, b"").decode()

    return JobReport(
        id=job_id,
        cluster_id=text(b"cluster_id"),
        group_name=text(b"group_name"),
        agent_id=text(b"agent_id"),
        status=JobStatus(text(b"status")),
        attempts=int(text(b"attempts") or 0),
        started_at=float(text(b"started_at") or 0) or None,
        finished_at=float(text(b"finished_at") or 0) or None,
        result=json.loads(text(b"result") or "null"),
        error=json.loads(text(b"error") or "null"),
        usage=_total_usage([*text(b"earlier_usage").splitlines(), text(b"usage")]),
    )


def _total_usage(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return what all attempts at a job used, as far as they counted it; None where none did."""
    found = [json.loads(text) for text in texts if text]
    total: dict[str, Any] = {}
    for usage in found:
        for name, value in (usage or {}).items():
            total[name] = total.get(name, 0) + value
    return total or None


def is_finished(report: JobReport | None) -> bool:
    """Return whether ``report`` tells an outcome."""
    return report is not None and report.status in FINISHED_JOB_STATUSES
