"""Jobs that ended without success: grouped by what went wrong, queued again, or put aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, func, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from brain_clusters.broker.jobs import JobRecords
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, Intent, JobStatus
from brain_clusters.errors import Conflict, NotFound, TemporaryError
from brain_clusters.services import blueprints, jobs, outcomes, submitting
from brain_clusters.services.control import Control
from brain_clusters.services.newjobs import Accepted

_BATCH = 1000
_MOST_GROUPS = 200
_MOST_CLUSTERS = 20
# What was put aside has no error_key any more.
DEAD: Sequence[ColumnElement[bool]] = (Job.error_key.is_not(None), Job.status.in_(DEAD_LETTER_STATUSES))
_AGAIN = (*DEAD_LETTER_STATUSES, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Letters:
    """Which dead letters of a cluster are meant. since: of their end."""

    error_key: str | None = None
    group: str | None = None
    since: datetime | None = None

    def conditions(self, cluster_id: str | None) -> list[ColumnElement[bool]]:
        """Return what rows of a cluster, or of all, must fulfil."""
        found = list(DEAD) if cluster_id is None else [Job.cluster_id == cluster_id, *DEAD]
        if self.error_key is not None:
            found.append(Job.error_key == self.error_key)
        if self.group is not None:
            found.append(Job.group_name == self.group)
        if self.since is not None:
            found.append(Job.finished_at >= self.since)
        return found


def grouped(control: Control, cluster_id: str, letters: Letters) -> list[dict[str, Any]]:
    """Return a cluster's dead letters by error and group, most first, at most _MOST_GROUPS: how many, when, and one."""
    newest = Job.finished_at.desc()
    with control.database.transaction() as session:
        _cluster(session, cluster_id)
        rows = session.execute(
            select(
                Job.error_key,
                Job.group_name.label("group"),
                func.count().label("count"),
                func.count(Job.payload).label("retryable"),
                func.min(Job.finished_at).label("first_at"),
                func.max(Job.finished_at).label("last_at"),
                _newest_of(Job.id, newest).label("example_id"),
                _newest_of(Job.error["message"].astext, newest).label("example_message"),
            )
            .where(*letters.conditions(cluster_id))
            .group_by(Job.error_key, Job.group_name)
            .order_by(func.count().desc(), Job.error_key, Job.group_name)
            .limit(_MOST_GROUPS)
        ).all()
    return [dict(row._mapping) for row in rows]


def by_error(control: Control, letters: Letters) -> list[dict[str, Any]]:
    """Return the dead letters of all clusters by error, most first, at most _MOST_GROUPS: how many, when, where, one.

    clusters: their ids, at most _MOST_CLUSTERS.
    """
    with control.database.transaction() as session:
        rows = session.execute(
            select(
                Job.error_key,
                func.count().label("count"),
                func.count(Job.payload).label("retryable"),
                func.min(Job.finished_at).label("first_at"),
                func.max(Job.finished_at).label("last_at"),
                func.array_agg(Job.cluster_id.distinct(), type_=ARRAY(Text)).label("clusters"),
                func.max(_timed_id(), type_=ARRAY(Text)).label("newest"),
            )
            .where(*letters.conditions(None))
            .group_by(Job.error_key)
            .order_by(func.count().desc(), Job.error_key)
            .limit(_MOST_GROUPS)
        ).all()
        found = [dict(row._mapping) for row in rows]
        ids = [one["newest"][1] for one in found]
        message = Job.error["message"].astext
        told = {
            row.id: row.said for row in session.execute(select(Job.id, message.label("said")).where(Job.id.in_(ids)))
        }
    for one in found:
        one["example_id"] = one.pop("newest")[1]
        one["example_message"] = told.get(one["example_id"])
        one["clusters"] = one["clusters"][:_MOST_CLUSTERS]
    return found


def _timed_id() -> Any:
    """Return [end, id], whose greatest is the newest: quicker than to sort, and less than an array of all ids."""
    end = func.to_char(func.timezone("UTC", Job.finished_at), "YYYYMMDDHH24MISSUS")
    return postgresql.array([func.coalesce(end, ""), Job.id])


def _newest_of(column: Any, order: Any) -> Any:
    return func.array_agg(aggregate_order_by(column, order), type_=ARRAY(Text))[1]


def _cluster(session: Session, cluster_id: str) -> Cluster:
    found = session.get(Cluster, cluster_id)
    if found is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    return found


@dataclass(frozen=True, slots=True)
class Treated:
    """What was done with dead letters: how many, and how many that match are left.

    kept: of those left, the ones that cannot be queued again, since their payload is not known here.
    """

    done: int
    left: int
    kept: int = 0


def retry(control: Control, job_id: str) -> Job:
    """Queue a job again that failed, is dead or was cancelled, with all its attempts before it; return it.

    Raises NotFound, and Conflict with the reason.
    """
    with control.database.transaction() as session:
        row = session.get(Job, job_id)
        cluster = session.get(Cluster, row.cluster_id) if row else None
        known = session.scalar(select(Job.payload.is_not(None)).where(Job.id == job_id))
    if row is None or cluster is None:
        status = jobs.get(control, job_id).status  # or there is no such job
        raise Conflict(f"the job is {status}; only failed, dead and cancelled jobs can be retried")
    if row.status not in _AGAIN:
        raise Conflict(f"the job is {row.status}; only failed, dead and cancelled jobs can be retried")
    if not known:
        raise Conflict("the payload of this job is not kept here; whoever sent it has to send it again")
    if cluster.intent is Intent.GONE:
        raise Conflict(f"a cluster that is {cluster.status} takes no jobs", status=str(cluster.status))
    if not _again(control, cluster, [job_id]):
        raise TemporaryError("the job is about to end; try again in a moment", delay_seconds=1.0)
    return jobs.get(control, job_id)


def retry_matching(control: Control, cluster_id: str, letters: Letters, limit: int) -> Treated:
    """Queue up to ``limit`` dead letters again, the oldest first."""
    with control.database.transaction() as session:
        cluster = _cluster(session, cluster_id)
    if cluster.intent is Intent.GONE:
        raise Conflict(f"a cluster that is {cluster.status} takes no jobs", status=str(cluster.status))
    conditions = letters.conditions(cluster_id)
    return Treated(retry_where(control, cluster, conditions, limit), *left(control, conditions))


def retry_where(control: Control, cluster: Cluster, conditions: Sequence[ColumnElement[bool]], limit: int) -> int:
    """Queue up to ``limit`` dead letters of a cluster that fulfil ``conditions`` again; return how many."""
    known, done = [*conditions, Job.payload.is_not(None)], 0
    while done < limit:
        with control.database.transaction() as session:
            query = select(Job.id).where(*known).order_by(Job.finished_at, Job.id).limit(min(_BATCH, limit - done))
            ids = session.scalars(query).all()
        batch = len(_again(control, cluster, ids)) if ids else 0
        done += batch
        if not batch:
            break
    return done


def left(control: Control, conditions: Sequence[ColumnElement[bool]]) -> tuple[int, int]:
    """Return how many jobs fulfil ``conditions``, and how many of them cannot be queued again."""
    with control.database.transaction() as session:
        query = select(func.count(), func.count().filter(Job.payload.is_(None))).where(*conditions)
        total, without_payload = session.execute(query).one()
    return total, without_payload


def discard_matching(control: Control, cluster_id: str, letters: Letters, limit: int) -> Treated:
    """Put up to ``limit`` dead letters aside: they stay in the list of jobs, without payload, for their usual time."""
    with control.database.transaction() as session:
        _cluster(session, cluster_id)
    conditions = letters.conditions(cluster_id)
    return Treated(discard_where(control, conditions, limit), left(control, conditions)[0])


def discard_where(control: Control, conditions: Sequence[ColumnElement[bool]], limit: int) -> int:
    """Put up to ``limit`` dead letters that fulfil ``conditions`` aside; return how many."""
    done = 0
    while done < limit:
        with control.database.transaction() as session:
            query = select(Job.id).where(*conditions).limit(min(_BATCH, limit - done))
            aside = update(Job).where(Job.id.in_(query.with_for_update(skip_locked=True).scalar_subquery()))
            aside = aside.values(error_key=None, payload=None).execution_options(synchronize_session=False)
            batch = session.execute(aside.returning(Job.id)).all()
        done += len(batch)
        if not batch:
            break
    return done


def _again(control: Control, cluster: Cluster, ids: Sequence[str]) -> list[str]:
    """Queue jobs again; return the ids of those that were not queued by somebody else meanwhile, and do not run.

    The record goes first: from then on, what its agent announced of the last life is of nobody.
    """
    with control.database.transaction() as session:
        outcomes.hold_lives(session, renews=True)
        stood = JobRecords(control.broker.redis).revive(ids)
        free = [job_id for job_id in ids if stood[job_id] is not JobStatus.RUNNING]
        # One that was cancelled while it waited, and whose message no agent met yet, still has it. Should it have been
        # lost, the sweep sends it anew.
        rows = session.scalars(
            select(Job).where(Job.id.in_(free), Job.status.in_(_AGAIN)).with_for_update(skip_locked=True)
        ).all()
        waiting = {row.id for row in rows if _still_waits(row, stood[row.id])}
        for row in rows:
            _renew(row)
            if row.id not in waiting:
                row.published_at = None
        blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    submitting.dispatch(control, cluster, [_accepted(row, blueprint) for row in rows if row.id not in waiting])
    return [row.id for row in rows]


def _still_waits(row: Job, stood: JobStatus | None) -> bool:
    """Return whether the message of a cancelled job is still in its queue, or parked for another attempt."""
    unmet = stood is None or stood is JobStatus.QUEUED
    return row.status is JobStatus.CANCELLED and row.published_at is not None and unmet


def _renew(row: Job) -> None:
    """Make a job what it was before its first attempt. It may be done at once, and does not expire a second time."""
    row.status, row.attempts, row.agent_id = JobStatus.QUEUED, 0, None
    row.result = row.error = row.error_key = row.usage = row.started_at = row.finished_at = None
    row.eta = row.expires_at = None
    row.options = {name: value for name, value in row.options.items() if name != "expires_at"}


def _accepted(row: Job, blueprint: Blueprint) -> Accepted:
    group = blueprint.group(row.group_name) or blueprint.supervisor
    return Accepted(
        row.id, row.cluster_id, group, row.payload, row.eta, row.priority, row.options, row.expires_at,
        row.created_at,
    )  # fmt: skip
