"""The job records that agents write and everyone reads: a hash per job, and a stream of what was finished.

Times are seconds since the epoch by the writer's clock. Results and errors are JSON texts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, JobStatus

log = logging.getLogger(__name__)

# A bound on a stream that nobody reads while PostgreSQL is away; at 1 KB an entry about 1 GB.
_STREAM_LIMIT = 1_000_000

# KEYS: record. ARGV: agent, now, ttl. Returns the attempt's number, or 0 when the job is finished already.
_BEGIN = """
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'succeeded' or status == 'failed' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'running', 'agent_id', ARGV[1], 'started_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HINCRBY', KEYS[1], 'attempts', 1)
"""


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


class JobRecords:
    """Reads and writes job records."""

    def __init__(self, client: redis.Redis, *, ttl_seconds: int = 86_400) -> None:
        self._client = client
        self._ttl = ttl_seconds

    def begin(self, job_id: str, agent_id: str) -> int:
        """Count a delivery; return its number from 1, or 0 when the job is finished and only its ack was lost."""
        with temporary_when_away():
            reply = self._client.eval(_BEGIN, 1, names.job_key(job_id), agent_id, str(time.time()), str(self._ttl))
        return int(reply)

    def finish(self, report: JobReport) -> None:
        """Record the outcome and announce it, in one transaction."""
        entry = _as_entry(report)
        with temporary_when_away():
            pipe = self._client.pipeline()
            pipe.hset(names.job_key(report.id), mapping=entry)
            pipe.expire(names.job_key(report.id), self._ttl)
            pipe.xadd(names.FINISHED_STREAM, entry, maxlen=_STREAM_LIMIT, approximate=True)
            pipe.execute()

    def get(self, job_ids: Sequence[str]) -> dict[str, JobReport]:
        """Return the records of ``job_ids`` that there are."""
        with temporary_when_away():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hgetall(names.job_key(job_id))
            found = pipe.execute()
        reports = {job_id: _sound(job_id, entry) for job_id, entry in zip(job_ids, found, strict=True) if entry}
        return {job_id: report for job_id, report in reports.items() if report is not None}

    def finished(self, limit: int) -> list[tuple[str, JobReport]]:
        """Return up to ``limit`` outcomes that nobody has stored yet, oldest first, each with its place."""
        with temporary_when_away():
            entries: Any = self._client.xrange(names.FINISHED_STREAM, count=limit)
        found = [(place.decode(), _sound(None, entry)) for place, entry in entries]
        self.forget([place for place, report in found if report is None])  # or it would come again for ever
        return [(place, report) for place, report in found if report is not None]

    def forget(self, places: Sequence[str]) -> None:
        """Remove stored outcomes from the stream."""
        with temporary_when_away():
            if places:
                self._client.xdel(names.FINISHED_STREAM, *places)


def _as_entry(report: JobReport) -> dict[Any, Any]:
    return {
        "id": report.id,
        "cluster_id": report.cluster_id,
        "group_name": report.group_name,
        "agent_id": report.agent_id,
        "status": str(report.status),
        "attempts": str(report.attempts),
        "started_at": str(report.started_at or ""),
        "finished_at": str(report.finished_at or ""),
        "result": json.dumps(report.result),
        "error": json.dumps(report.error),
    }


def _sound(job_id: str | None, entry: dict[bytes, bytes]) -> JobReport | None:
    """Return a report, or None for what makes no sense: agents run users' code, which can write here."""
    try:
        return _from_entry(job_id if job_id is not None else entry[b"id"].decode(), entry)
    except (ValueError, KeyError, RecursionError) as exc:
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
    )


def is_finished(report: JobReport | None) -> bool:
    """Return whether ``report`` tells an outcome."""
    return report is not None and report.status in FINISHED_JOB_STATUSES
