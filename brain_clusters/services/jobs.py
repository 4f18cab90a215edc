"""Jobs: accepted in PostgreSQL, done from Redis. No SQL while one is done; ``outcomes`` has what comes after."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.commands import Origin, ReactivateCluster, ScaleCluster
from brain_clusters.domain.durations import parse_duration, parse_instant
from brain_clusters.domain.sleeping import job_wakes
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, Intent, JobStatus
from brain_clusters.errors import BrainError, Conflict, Fault, InvalidInput, NotFound, TemporaryError
from brain_clusters.services import blueprints, lifecycle
from brain_clusters.services.control import Control
from brain_clusters.services.outcomes import queue_of, time_of
from brain_clusters.services.paging import Page, page

log = logging.getLogger(__name__)

HORIZON_TICKS = 2.0
_LONGEST_WAIT = timedelta(days=365)
# One batch is a third of a second's publishing; what is left after so many is the next call's.
_BATCH = 2000
_MOST_BATCHES = 5
_WAITS_FOR_ETA = (Job.status == JobStatus.QUEUED, Job.published_at.is_(None), Job.eta.is_not(None))


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asks for: a group by name, or a capability, or neither for the supervisor.

    eta (ISO 8601) or delay (a duration): not to be begun before. Neither: as soon as possible.
    """

    to: str | None = None
    capability: str | None = None
    payload: Any = None
    eta: str | None = None
    delay: float | str | None = None


def record(session: Session, cluster_id: str, new: NewJob) -> tuple[Job, Cluster, AgentGroup]:
    """Accept a job: once the caller commits, it is never lost. Raises NotFound, Conflict or InvalidInput."""
    # The shared lock orders this against commands: a job is accepted either before a hibernation or after it.
    cluster = session.scalars(select(Cluster).where(Cluster.id == cluster_id).with_for_update(read=True)).first()
    if cluster is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    if cluster.intent is Intent.GONE:
        raise Conflict(f"a cluster that is {cluster.status} takes no jobs", status=str(cluster.status))
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    group, now = _group_for(blueprint, new), datetime.now(UTC)
    job = Job(
        id=str(uuid.uuid4()), cluster_id=cluster.id, group_name=group.name, status=JobStatus.QUEUED,
        payload=new.payload, attempts=0, created_at=now, eta=_eta(new, now),
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


def _eta(new: NewJob, now: datetime) -> datetime | None:
    """Return when a job is due. What is past is now: nobody can begin it earlier."""
    try:
        if new.eta is not None:
            pointer, found = "/eta", parse_instant(new.eta)
        elif new.delay is not None:
            pointer, found = "/delay", now + timedelta(seconds=parse_duration(new.delay))
        else:
            return None
    except ValueError as exc:  # whoever calls without the schema
        raise InvalidInput(f"the time of a job {exc}") from exc
    if found > now + _LONGEST_WAIT:
        raise InvalidInput("the job is not valid", [Fault(pointer, "a job waits for at most 365 days; ask for less")])
    return max(found, now).astimezone(UTC)


def horizon_seconds(control: Control) -> float:
    """Return how long before their time jobs go to Redis: until the tick after the next."""
    return HORIZON_TICKS * control.settings.tick_interval_seconds


def dispatch(control: Control, job: Job, cluster: Cluster, group: AgentGroup) -> None:
    """Publish an accepted job, and wake whoever has to do it. What fails here is repaired by the sweep and the tick.

    A job that is due later than the next ticks stays where it is, and wakes nobody: ``publish_due`` is for it. One that
    is due sooner waits in Redis, where an agent finds it to the millisecond.
    """
    if job.eta is not None and job.eta > datetime.now(UTC) + timedelta(seconds=horizon_seconds(control)):
        return
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
        asleep = cluster.intent is Intent.ASLEEP
        with control.database.transaction() as session:
            blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
        if lifecycle.over_budget(cluster, blueprint) or not job_wakes(blueprint, asleep=asleep):
            return
        if asleep:
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


def publish_due(control: Control, horizon_seconds: float) -> int:
    """Publish the jobs that are due within the horizon; return how many. Those that came late, too.

    One that lies ahead bears its time, and waits in Redis for it. Safe to run twice at once: each takes other jobs.
    When a message is out and its row cannot be written, it is published a second time, as any may be.
    """
    published = 0
    for _ in range(_MOST_BATCHES):
        batch = _publish_batch(control, timedelta(seconds=horizon_seconds))
        published += batch
        if batch < _BATCH:
            break
    return published


def _publish_batch(control: Control, horizon: timedelta) -> int:
    with control.database.transaction() as session:
        rows = session.execute(
            select(Job, Cluster.blueprint_id, Cluster.blueprint_version)
            .join(Cluster, Cluster.id == Job.cluster_id)
            .where(*_WAITS_FOR_ETA, Job.eta <= func.now() + horizon)
            .order_by(Job.eta)
            .limit(_BATCH)
            .with_for_update(of=Job, skip_locked=True)
        ).all()
        queues: dict[str, list[Job]] = {}
        for job, blueprint_id, version in rows:
            queue = queue_of(session, job, blueprint_id, version)
            if queue is not None:
                queues.setdefault(queue, []).append(job)
        sent = _publish(control, queues)
        session.execute(update(Job).where(Job.id.in_(sent)).values(published_at=func.now()))
    return len(sent)


def _publish(control: Control, queues: Mapping[str, list[Job]]) -> list[str]:
    """Return the ids of what Redis took. Raises TemporaryError when it took none of it."""
    sent: list[str] = []
    for queue, batch in queues.items():
        try:
            control.broker.publish_jobs(queue, batch)
        except TemporaryError as exc:
            if not sent:
                raise
            log.warning("queue=%s: %d jobs that are due are delivered later: %s", queue, len(batch), exc)
            break
        sent += [job.id for job in batch]
    return sent


def next_due(session: Session) -> dict[tuple[str, str], float]:
    """Return when the first job that is not published yet is due (seconds since the epoch), by cluster and group."""
    first = func.extract("epoch", func.min(Job.eta))
    rows = session.execute(
        select(Job.cluster_id, Job.group_name, first).where(*_WAITS_FOR_ETA).group_by(Job.cluster_id, Job.group_name)
    )
    return {(cluster_id, group): float(due) for cluster_id, group, due in rows}


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
