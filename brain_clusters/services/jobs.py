"""Jobs: accepted in PostgreSQL, done from Redis, and their outcomes stored in bulk. No SQL while one is done."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport, is_finished
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.commands import Origin, ReactivateCluster, ScaleCluster
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, Intent, JobStatus
from brain_clusters.errors import BrainError, Conflict, Fault, InvalidInput, NotFound, TemporaryError
from brain_clusters.services import blueprints, lifecycle
from brain_clusters.services.control import Control
from brain_clusters.services.paging import Page, page

log = logging.getLogger(__name__)

# A job that is in no queue and held by nobody for so long after its publication was lost, and is published again.
_LOST_SECONDS = 10.0
_UNPUBLISHED_SECONDS = 3.0
_BATCH = 2000


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asks for: a group by name, or a capability, or neither for the supervisor."""

    to: str | None = None
    capability: str | None = None
    payload: Any = None


def record(session: Session, cluster_id: str, new: NewJob) -> tuple[Job, Cluster, AgentGroup]:
    """Accept a job: once the caller commits, it is never lost. Raises NotFound, Conflict or InvalidInput."""
    # The shared lock orders this against commands: a job is accepted either before a hibernation or after it.
    cluster = session.scalars(select(Cluster).where(Cluster.id == cluster_id).with_for_update(read=True)).first()
    if cluster is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    if cluster.intent is Intent.GONE:
        raise Conflict(f"a cluster that is {cluster.status} takes no jobs", status=str(cluster.status))
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    group = _group_for(blueprint, new)
    job = Job(
        id=str(uuid.uuid4()), cluster_id=cluster.id, group_name=group.name, status=JobStatus.QUEUED,
        payload=new.payload, attempts=0, created_at=datetime.now(UTC),
    )  # fmt: skip
    session.add(job)
    session.flush()
    return job, cluster, group


def _group_for(blueprint: Blueprint, new: NewJob) -> AgentGroup:
    if new.to is not None:
        found, pointer, known = blueprint.group(new.to), "/to", [group.name for group in blueprint.groups]
        what = f"group {new.to!r}"
    elif new.capability is not None:
        found, pointer = blueprint.with_capability(new.capability), "/capability"
        known = sorted({word for group in blueprint.groups for word in group.capabilities})
        what = f"group with the capability {new.capability!r}"
    else:
        return blueprint.supervisor
    if found is None:
        listed = ", ".join(repr(word) for word in known) or "none"
        raise InvalidInput("nobody there can do the job", [Fault(pointer, f"there is no {what}; there are {listed}")])
    return found


def dispatch(control: Control, job: Job, cluster: Cluster, group: AgentGroup) -> None:
    """Publish an accepted job, and wake whoever has to do it. What fails here is repaired by the sweep and the tick."""
    wake_first = cluster.intent is Intent.ASLEEP or cluster.group_targets.get(group.name, 0) == 0
    if wake_first:
        _wake(control, cluster, group)
    try:
        control.broker.publish_jobs(names.group_queue(cluster.id, group.slug), [job])
        with control.database.transaction() as session:
            session.execute(update(Job).where(Job.id == job.id).values(published_at=func.now()))
    except TemporaryError as exc:
        log.warning("job=%s is delivered later: %s", job.id, exc)


def _wake(control: Control, cluster: Cluster, group: AgentGroup) -> None:
    """Start the cluster, or the first agent of a group, for a job that was just accepted."""
    try:
        if cluster.intent is Intent.ASLEEP:
            with control.database.transaction() as session:
                blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
            if blueprint.lifecycle.reactivate.new_task_received:
                origin = Origin("job", f"a job for {group.name} came while the cluster slept")
                lifecycle.submit(control, ReactivateCluster(cluster_id=cluster.id, wanted_groups=(group.name,)), origin)
        elif sum(cluster.group_targets.values()) < cluster.max_workers and group.count.maximum > 0:
            origin = Origin("job", f"a job for {group.name} came and no agent serves that group")
            # Only as the cluster stands: of many jobs that come at once, one starts the agent.
            wanted = ScaleCluster(cluster_id=cluster.id, groups={group.name: 1}, if_generation=cluster.generation)
            lifecycle.submit(control, wanted, origin)
    except BrainError as exc:
        # Somebody else woke it first, or PostgreSQL went away after the job was accepted: the tick looks again.
        log.info("cluster=%s was not woken by a job: %s", cluster.id, exc)


def get(control: Control, job_id: str) -> Job:
    """Return a job as it stands now, with what its agent told last; raise NotFound.

    Also finds jobs that another Celery client queued, as soon as an agent has begun them.
    """
    with control.database.transaction() as session:
        job = session.get(Job, job_id)
    return _with_reports(control, [job] if job else [], [job_id])[job_id]


def listing(
    control: Control, cluster_id: str, *, status: JobStatus | None, group: str | None, limit: int, cursor: str | None
) -> Page[Job]:
    """Return a page of a cluster's jobs, newest first. Filters see what was stored: up to two seconds ago."""
    with control.database.transaction() as session:
        if session.get(Cluster, cluster_id) is None:
            raise NotFound(f"there is no cluster {cluster_id!r}")
        query = select(Job).where(Job.cluster_id == cluster_id)
        if status is not None:
            query = query.where(Job.status == status)
        if group is not None:
            query = query.where(Job.group_name == group)
        found = page(
            session, query, (Job.created_at, Job.id), lambda row: (row.created_at, row.id), limit=limit, cursor=cursor
        )
    fresh = _with_reports(control, found.items, [])
    return Page([fresh[job.id] for job in found.items], found.total, found.next_cursor)


def _with_reports(control: Control, jobs: Sequence[Job], extra: Sequence[str]) -> dict[str, Job]:
    """Return ``jobs`` by id, those that are not finished updated from their agents' records."""
    found = {job.id: job for job in jobs}
    asked = [job.id for job in jobs if job.status not in FINISHED_JOB_STATUSES]
    asked += [job_id for job_id in extra if job_id not in found]
    try:
        reports = JobRecords(control.broker.redis).get(asked) if asked else {}
    except TemporaryError:
        reports = {}
    for job_id, report in reports.items():
        if job_id in found:
            _apply(found[job_id], report)
        elif report.cluster_id:
            found[job_id] = _foreign(report)
    for job_id in extra:
        if job_id not in found:
            raise NotFound(f"there is no job {job_id!r}")
    return found


def _apply(job: Job, report: JobReport) -> None:
    job.status, job.attempts, job.agent_id = report.status, report.attempts, report.agent_id
    job.result, job.error = report.result, report.error
    job.started_at, job.finished_at = _time(report.started_at), _time(report.finished_at)


def _foreign(report: JobReport) -> Job:
    started = _time(report.started_at) or datetime.now(UTC)
    job = Job(id=report.id, cluster_id=report.cluster_id, group_name=report.group_name, created_at=started)
    _apply(job, report)
    return job


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# --- outcomes ---------------------------------------------------------------------------------------------------


def collect(control: Control, *, limit: int = _BATCH) -> int:
    """Store outcomes that agents announced; return how many. Safe to run twice: only the first storing counts."""
    records = JobRecords(control.broker.redis)
    entries = records.finished(limit)
    if entries:
        with control.database.transaction() as session:
            # One report a job: PostgreSQL refuses to update a row twice in one statement.
            store(session, list({report.id: report for _, report in entries}.values()))
        records.forget([place for place, _ in entries])
    return len(entries)


def store(session: Session, reports: Sequence[JobReport]) -> None:
    """Write outcomes and count them. A job that is finished already is neither changed nor counted."""
    known = set(session.scalars(select(Cluster.id).where(Cluster.id.in_({report.cluster_id for report in reports}))))
    rows = [_row(report) for report in reports if report.cluster_id in known]
    if not rows:
        return
    statement = insert(Job).values(rows)
    given = statement.excluded
    changed = session.execute(
        statement.on_conflict_do_update(
            index_elements=[Job.id],
            set_={
                "status": given.status,
                "result": given.result,
                "error": given.error,
                "attempts": given.attempts,
                "agent_id": given.agent_id,
                "started_at": given.started_at,
                "finished_at": given.finished_at,
                "payload": None,
            },
            where=Job.status.not_in(FINISHED_JOB_STATUSES),
        ).returning(Job.cluster_id, Job.status)
    ).all()
    _count(session, [(cluster_id, status) for cluster_id, status in changed])


def _row(report: JobReport) -> dict[str, Any]:
    return {
        "id": report.id, "cluster_id": report.cluster_id, "group_name": report.group_name, "status": report.status,
        "result": report.result, "error": report.error, "attempts": report.attempts, "agent_id": report.agent_id,
        "started_at": _time(report.started_at), "finished_at": _time(report.finished_at),
        "created_at": _time(report.started_at) or datetime.now(UTC), "published_at": _time(report.started_at),
    }  # fmt: skip


def _count(session: Session, changed: Sequence[tuple[str, JobStatus]]) -> None:
    for cluster_id in sorted({cluster_id for cluster_id, _ in changed}):  # sorted: no deadlock between two collectors
        done = sum(1 for one, status in changed if one == cluster_id and status is JobStatus.SUCCEEDED)
        failed = sum(1 for one, status in changed if one == cluster_id and status is JobStatus.FAILED)
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


# --- what got lost ----------------------------------------------------------------------------------------------


def sweep(control: Control, idle_groups: Mapping[tuple[str, str], str]) -> int:
    """Publish again what is accepted and nowhere; return how many.

    idle_groups: queue by (cluster_id, group name) of groups where nothing waits and nothing is held. A job that was
    published there longer than _LOST_SECONDS ago and has no outcome is lost: Redis lost data, or a publish failed.
    """
    found = [*_unpublished(control), *_missing(control, idle_groups)]
    if not found:
        return 0
    reports = JobRecords(control.broker.redis).get([job.id for job, _ in found])
    ended = [report for report in reports.values() if is_finished(report)]
    with control.database.transaction() as session:
        store(session, ended)
    lost: dict[str, list[Job]] = {}
    for job, queue in found:
        if not is_finished(reports.get(job.id)):
            lost.setdefault(queue, []).append(job)
    for queue, jobs in lost.items():
        log.warning("queue=%s: %d jobs were lost or not delivered; published again", queue, len(jobs))
        control.broker.publish_jobs(queue, jobs)
        with control.database.transaction() as session:
            session.execute(update(Job).where(Job.id.in_([job.id for job in jobs])).values(published_at=func.now()))
    return sum(len(jobs) for jobs in lost.values())


def _unpublished(control: Control) -> list[tuple[Job, str]]:
    """Return jobs that were accepted while Redis was away, oldest first."""
    with control.database.transaction() as session:
        rows = session.execute(
            select(Job, Cluster.blueprint_id, Cluster.blueprint_version)
            .join(Cluster, Cluster.id == Job.cluster_id)
            .where(
                Job.status == JobStatus.QUEUED,
                Job.published_at.is_(None),
                Job.created_at < func.now() - timedelta(seconds=_UNPUBLISHED_SECONDS),
            )
            .order_by(Job.created_at)
            .limit(_BATCH)
        ).all()
        found = []
        for job, blueprint_id, version in rows:
            group = blueprints.parsed(session, blueprint_id, version).group(job.group_name)
            if group is not None:
                found.append((job, names.group_queue(job.cluster_id, group.slug)))
    return found


def _missing(control: Control, idle_groups: Mapping[tuple[str, str], str]) -> list[tuple[Job, str]]:
    with control.database.transaction() as session:
        if not _any_published(session):
            return []
        keys = list(idle_groups)
        found: list[Job] = []
        for start in range(0, len(keys), 1000):
            found += session.scalars(
                select(Job)
                .where(
                    tuple_(Job.cluster_id, Job.group_name).in_(keys[start : start + 1000]),
                    Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)),
                    Job.published_at < func.now() - timedelta(seconds=_LOST_SECONDS),
                )
                .order_by(Job.created_at)
                .limit(_BATCH)
            )
    return [(job, idle_groups[job.cluster_id, job.group_name]) for job in found]


def _any_published(session: Session) -> bool:
    old = func.now() - timedelta(seconds=_LOST_SECONDS)
    query = select(Job.id).where(Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)), Job.published_at < old).limit(1)
    return session.scalar(query) is not None
