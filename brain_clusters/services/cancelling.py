"""Jobs cancelled with all that they handed down: at once while they wait; those that run are asked to end, and after
their grace are ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ARRAY, ColumnElement, Text, cast, func, select, true, tuple_, update

from brain_clusters.broker.jobs import JobRecords
from brain_clusters.db.models import Job
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, JobStatus
from brain_clusters.errors import Conflict
from brain_clusters.services import jobs, outcomes, trees
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key
from brain_clusters.services.jobs import UNFINISHED, Filters

DEFAULT_GRACE_SECONDS = 10.0
_BATCH = 2000
# How many jobs one request looks at; what is left is the next one's.
_MOST_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of jobs: how many are cancelled, how many run and were asked to end. more: others may match."""

    cancelled: int = 0
    cancelling: int = 0
    more: bool = False


def cancel(control: Control, job_id: str, grace_seconds: float = DEFAULT_GRACE_SECONDS) -> Job:
    """Cancel a job; return it as it stands then. Raises NotFound, and Conflict for one that is finished.

    One that runs stays running until its agent has seen it.
    """
    job = jobs.get(control, job_id)
    if job.status not in FINISHED_JOB_STATUSES:
        cancel_many(control, [job_id], grace_seconds)
        job = jobs.get(control, job_id)
    if job.status in FINISHED_JOB_STATUSES and job.status is not JobStatus.CANCELLED:
        raise Conflict(f"a job that {_ended(job.status)} cannot be cancelled any more")
    return job


def _ended(status: JobStatus) -> str:
    return {JobStatus.SUCCEEDED: "succeeded", JobStatus.FAILED: "failed", JobStatus.DEAD: "is dead"}[status]


def cancel_many(
    control: Control, job_ids: Sequence[str], grace_seconds: float, *, only: Sequence[JobStatus] = UNFINISHED
) -> Cancelled:
    """Cancel those of the jobs that are not finished. only: leave alone those that do not stand like this.

    The order matters: once Redis knows, no agent begins one any more, so what has not begun by then is never begun;
    and nothing more is handed down below it, so what is found there is all.
    """
    if not job_ids:
        return Cancelled()
    records = JobRecords(control.broker.redis, ttl_seconds=control.settings.job_ttl_seconds)
    wanted = list(job_ids)
    if set(only) != set(UNFINISHED):
        running = {one for one, report in records.get(wanted).items() if report.status is JobStatus.RUNNING}
        wanted = [one for one in wanted if (one in running) is (JobStatus.RUNNING in only)]
    found = records.cancel(wanted, grace_seconds)
    below = trees.descendants(control, wanted)
    found |= records.cancel(below, grace_seconds) if below else {}
    waited = trees.end_waiting(control, list(found))
    found |= dict.fromkeys(waited)
    # As reported: the update below knows nothing of what they did before they waited.
    outcomes.store_sound(control, list(records.get(waited).values()))
    waits = [job_id for job_id, status in found.items() if status in (None, JobStatus.QUEUED)]
    # After those who wait were ended, so that none of them goes on only to be cancelled.
    trees.join_cancelled(control, waits)
    with control.database.transaction() as session:
        ended = session.execute(
            update(Job)
            .where(Job.id == func.any(cast(waits, ARRAY(Text))), Job.status.in_(UNFINISHED))
            .values(status=JobStatus.CANCELLED, finished_at=func.now())
            .returning(Job.id, Job.cluster_id, Job.group_name)
            .execution_options(synchronize_session=False)
        ).all()
        counts = Counts()
        for job in ended:
            counts.add(Key(job.cluster_id, job.group_name, "brain_jobs_total", str(JobStatus.CANCELLED)))
        counts.write(session)
    return Cancelled(
        len({*(job.id for job in ended), *waited}), sum(status is JobStatus.RUNNING for status in found.values())
    )


def cancel_matching(
    control: Control, cluster_id: str | None, filters: Filters, grace_seconds: float = DEFAULT_GRACE_SECONDS
) -> Cancelled:
    """Cancel the unfinished jobs of a cluster that match, or of all clusters, oldest first.

    Jobs without a row are not among them.
    """
    statuses = tuple(one for one in filters.statuses or UNFINISHED if one in UNFINISHED)
    any_status = replace(filters, statuses=())
    place = (Job.created_at, Job.id)
    later: ColumnElement[bool] = true()
    total = Cancelled()
    for _ in range(_MOST_BATCHES if statuses else 0):
        with control.database.transaction() as session:
            conditions = [Job.status.in_(UNFINISHED), *jobs.matching(session, cluster_id, any_status), later]
            query = select(Job.created_at, Job.id).where(*conditions)
            rows = session.execute(query.order_by(*place).limit(_BATCH)).all()
        done = cancel_many(control, [row.id for row in rows], grace_seconds, only=statuses)
        total = Cancelled(total.cancelled + done.cancelled, total.cancelling + done.cancelling, len(rows) == _BATCH)
        if len(rows) < _BATCH:
            break
        later = tuple_(*place) > tuple_(*rows[-1])
    return total
