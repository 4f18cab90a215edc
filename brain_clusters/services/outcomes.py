"""The outcomes of jobs: stored in bulk from what agents announced; and jobs that got lost, published again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Integer, Text, case, func, null, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from brain_clusters.broker import names
from brain_clusters.broker.client import was_refused
from brain_clusters.broker.jobs import JobRecords, JobReport, is_finished
from brain_clusters.db.bulk import records_of
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.failures import error_key
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, FINISHED_JOB_STATUSES, JobStatus
from brain_clusters.errors import InvalidInput, TemporaryError
from brain_clusters.services import blueprints, metering, trees
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key

log = logging.getLogger(__name__)

# A job that is in no queue and held by nobody for so long after its publication was lost, and is published again.
_LOST_SECONDS = 10.0
_UNPUBLISHED_SECONDS = 3.0
_BATCH = 2000
# Of PostgreSQL's advisory locks: any number that nothing else of ours takes.
_LIVES_LOCK = 0x6C69766573
_MOST_BATCHES = 5
_TIME = DateTime(timezone=True)
# What a report tells of a job; the others are of one that is not known yet.
_TOLD: dict[str, TypeEngine[Any] | type[TypeEngine[Any]]] = {
    "status": Job.__table__.c.status.type, "result": JSONB, "error": JSONB, "error_key": Text, "attempts": Integer,
    "agent_id": Text, "usage": JSONB, "started_at": _TIME, "finished_at": _TIME,
}  # fmt: skip
_COLUMNS = {
    "id": Text, "cluster_id": Text, "group_name": Text, **_TOLD, "created_at": _TIME, "published_at": _TIME,
}  # fmt: skip


def collect(control: Control, *, limit: int = _BATCH) -> int:
    """Store outcomes that agents announced; return how many. Safe to run twice: only the first storing counts.

    limit: of one batch. What is left after _MOST_BATCHES is the next call's.
    """
    stored = 0
    for _ in range(_MOST_BATCHES):
        batch = _collect_batch(control, limit)
        stored += batch
        if batch < limit:
            break
    return stored


def _collect_batch(control: Control, limit: int) -> int:
    records = JobRecords(control.broker.redis)
    with control.database.transaction() as guard:
        hold_lives(guard)
        entries = records.finished(limit)
        if entries:
            # One report a job: PostgreSQL refuses to update a row twice in one statement.
            store_sound(control, list({report.id: report for _, report in entries}.values()))
            records.forget([place for place, _ in entries])
    return len(entries)


def hold_lives(session: Session, *, renews: bool = False) -> None:
    """Let no job begin a new life, until the session's transaction ends, between reading its outcome and storing it.

    Else a retry in between would be ended by the outcome of the life before. renews: for whoever begins new lives.
    """
    lock = func.pg_advisory_xact_lock if renews else func.pg_advisory_xact_lock_shared
    session.execute(select(lock(_LIVES_LOCK)))


def store_sound(control: Control, reports: Sequence[JobReport]) -> None:
    """Store reports at once or, where that fails, one by one, without those that PostgreSQL refuses.

    Agents run users' code, which can announce anything; one such report must not keep all others for ever.
    """
    try:
        with control.database.transaction() as session:
            store(session, reports)
    except TemporaryError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever the report provokes
        if len(reports) == 1:
            log.error("the outcome of a job cannot be stored: %s", exc, extra={"job_id": reports[0].id})
            return
        for report in reports:
            store_sound(control, [report])


def store(session: Session, reports: Sequence[JobReport]) -> None:
    """Write outcomes and count them. A job that is finished already is neither changed nor counted."""
    known = set(session.scalars(select(Cluster.id).where(Cluster.id.in_({report.cluster_id for report in reports}))))
    texts = [_as_record(report) for report in reports if report.cluster_id in known]
    if not texts:
        return
    given = records_of("given", _COLUMNS, texts)
    statement = insert(Job).from_select(list(_COLUMNS), select(*given.c))
    new = statement.excluded
    done = new.status == JobStatus.SUCCEEDED
    changed = session.execute(
        statement.on_conflict_do_update(
            index_elements=[Job.id],
            set_={
                **{name: getattr(new, name) for name in _TOLD},
                # What did not succeed may be queued again, and needs its payload for that.
                "payload": case((done, null()), else_=Job.payload),
            },
            where=Job.status.not_in(FINISHED_JOB_STATUSES),
        ).returning(
            Job.id, Job.cluster_id, Job.group_name, Job.agent_id, Job.status, Job.started_at, Job.finished_at, Job.usage
        )
    ).all()
    _count(session, [(row.cluster_id, row.status) for row in changed])
    metering.account(session, changed)
    _tally(session, changed)


def _as_record(report: JobReport) -> str:
    """Return a row as the text of a JSON object. The time of a job's begin is all that is known of its creation."""
    started = time_of(report.started_at)
    begun, dead = (started or datetime.now(UTC)).isoformat(), report.status in DEAD_LETTER_STATUSES
    finished = time_of(report.finished_at)
    return json.dumps(
        {
            "id": report.id, "cluster_id": report.cluster_id, "group_name": report.group_name,
            "status": str(report.status), "result": report.result, "error": report.error,
            "error_key": error_key(report.error) if dead else None, "attempts": report.attempts,
            "agent_id": report.agent_id, "usage": report.usage, "started_at": started and started.isoformat(),
            "finished_at": finished and finished.isoformat(), "created_at": begun, "published_at": begun,
        }
    )  # fmt: skip


def _count(session: Session, changed: Sequence[tuple[str, JobStatus]]) -> None:
    for cluster_id in sorted({cluster_id for cluster_id, _ in changed}):  # sorted: no deadlock between two collectors
        done = sum(1 for one, status in changed if one == cluster_id and status is JobStatus.SUCCEEDED)
        failed = sum(1 for one, status in changed if one == cluster_id and status in DEAD_LETTER_STATUSES)
        session.execute(
            update(Cluster)
            .where(Cluster.id == cluster_id)
            .values(
                tasks_completed=Cluster.tasks_completed + done,
                tasks_failed=Cluster.tasks_failed + failed,
                last_active=func.now(),
            )
            .execution_options(synchronize_session=False)
        )


def _tally(session: Session, changed: Sequence[Any]) -> None:
    counts = Counts()
    for job in changed:
        key = Key(job.cluster_id, job.group_name, "brain_jobs_total", str(job.status))
        counts.add(key)
        if job.started_at is not None and job.finished_at is not None:
            counts.observe(key._replace(metric="brain_job_seconds", label=""), _seconds(job))
    counts.write(session)


def _seconds(job: Any) -> float:
    found: float = (job.finished_at - job.started_at).total_seconds()
    return found


# --- what got lost ----------------------------------------------------------------------------------------------


IdleGroups = Callable[[], Mapping[tuple[str, str], str]]


def sweep(control: Control, idle_groups: IdleGroups) -> int:
    """Publish again what is accepted and nowhere; return how many.

    idle_groups: returns the queue by (cluster_id, group name) of groups where nothing waits and nothing is held. A
    job that was published there longer than _LOST_SECONDS ago, is due for so long, and has no outcome is lost: Redis
    lost data, or a publish failed.
    """
    found = [*_unpublished(control), *_missing(control, idle_groups)]
    if not found:
        return 0
    with control.database.transaction() as guard:
        hold_lives(guard)
        records = JobRecords(control.broker.redis)
        reports = records.get([job.id for job, _ in found])
        held = records.held(reports.values())
        store_sound(control, [report for report in reports.values() if is_finished(report)])
    lost: dict[str, list[Job]] = {}
    waiting = trees.leave_waiting(control, [job.id for job, _ in found])
    for job, queue in found:
        if job.id not in waiting | held and not is_finished(reports.get(job.id)):
            lost.setdefault(queue, []).append(job)
    for queue, jobs in lost.items():
        log.warning("queue=%s: %d jobs were lost or not delivered; published again", queue, len(jobs))
        try:
            control.broker.publish_jobs(queue, jobs)
        except TemporaryError as exc:
            if not was_refused(exc):
                raise
            log.error("queue=%s takes no job: %s", queue, exc.__cause__)  # another one may
            continue
        with control.database.transaction() as session:
            session.execute(update(Job).where(Job.id.in_([job.id for job in jobs])).values(published_at=func.now()))
    return sum(len(jobs) for jobs in lost.values())


def _unpublished(control: Control) -> list[tuple[Job, str]]:
    """Return jobs that were accepted while Redis was away, oldest first. ``jobs.publish_due`` has those with an ETA."""
    with control.database.transaction() as session:
        rows = session.execute(
            select(Job, Cluster.blueprint_id, Cluster.blueprint_version)
            .join(Cluster, Cluster.id == Job.cluster_id)
            .where(
                Job.status == JobStatus.QUEUED,
                Job.published_at.is_(None),
                Job.eta.is_(None),
                Job.created_at < func.now() - timedelta(seconds=_UNPUBLISHED_SECONDS),
            )
            .order_by(Job.created_at)
            .limit(_BATCH)
        ).all()
        found = []
        for job, blueprint_id, version in rows:
            queue = queue_of(session, job, blueprint_id, version)
            if queue is not None:
                found.append((job, queue))
    return found


def queue_of(session: Session, job: Job, blueprint_id: str, version: str) -> str | None:
    """Return the queue of a job's group, or None for one whose blueprint cannot be read: it must not stop others."""
    try:
        group = blueprints.parsed(session, blueprint_id, version).group(job.group_name)
    except InvalidInput as exc:
        log.error("a job is not delivered: %s", exc, extra={"job_id": job.id, "cluster_id": job.cluster_id})
        return None
    return None if group is None else names.group_queue(job.cluster_id, group.slug)


def _missing(control: Control, idle_groups: IdleGroups) -> list[tuple[Job, str]]:
    with control.database.transaction() as session:
        if not _any_published(session):
            return []
        idle = idle_groups()
        keys = list(idle)
        found: list[Job] = []
        for start in range(0, len(keys), 1000):
            found += session.scalars(
                select(Job)
                .where(
                    tuple_(Job.cluster_id, Job.group_name).in_(keys[start : start + 1000]),
                    *_long_published(),
                )
                .order_by(Job.created_at)
                .limit(_BATCH)
            )
    return [(job, idle[job.cluster_id, job.group_name]) for job in found]


def _any_published(session: Session) -> bool:
    return session.scalar(select(Job.id).where(*_long_published()).limit(1)) is not None


def _long_published() -> tuple[ColumnElement[bool], ...]:
    """Return what holds for jobs that should be done, or seen in Redis, by now."""
    old = func.now() - timedelta(seconds=_LOST_SECONDS)
    due = or_(Job.eta.is_(None), Job.eta < old)
    return Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)), Job.published_at < old, due


def time_of(seconds: float | None) -> datetime | None:
    """Return a time given in seconds since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
