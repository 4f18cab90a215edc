"""Jobs: accepted in PostgreSQL, done from Redis. No SQL while one is done; ``outcomes`` has what comes after."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.commands import Origin, ReactivateCluster, ScaleCluster
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, Intent, JobStatus
from brain_clusters.errors import BrainError, Conflict, Fault, InvalidInput, NotFound, TemporaryError
from brain_clusters.services import blueprints, lifecycle
from brain_clusters.services.control import Control
from brain_clusters.services.outcomes import time_of
from brain_clusters.services.paging import Page, page

log = logging.getLogger(__name__)


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
                lifecycle.submit(control, ReactivateCluster(cluster_id=cluster.id, groups={group.name: 1}), origin)
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
    job.started_at, job.finished_at = time_of(report.started_at), time_of(report.finished_at)


def _foreign(report: JobReport) -> Job:
    started = time_of(report.started_at) or datetime.now(UTC)
    job = Job(id=report.id, cluster_id=report.cluster_id, group_name=report.group_name, created_at=started)
    _apply(job, report)
    return job
