"""What is done to all jobs that match at once, in one cluster or in all that the caller sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, FINISHED_JOB_STATUSES, Intent, JobStatus
from brain_clusters.errors import Conflict
from brain_clusters.services import dead_letters, jobs
from brain_clusters.services.control import Control
from brain_clusters.services.dead_letters import Treated
from brain_clusters.services.jobs import MOST_COUNTED, UNFINISHED, Filters
from brain_clusters.services.paging import counted


@dataclass(frozen=True, slots=True)
class Matching:
    """How many jobs match, up to MOST_COUNTED of each. unfinished: to be cancelled; dead: to be retried, or dropped."""

    unfinished: int
    dead: int


def count(session: Session, cluster_id: str | None, filters: Filters) -> Matching:
    """Return what could be done to the jobs that match."""
    unfinished = dead = 0
    if not set(filters.statuses) <= set(FINISHED_JOB_STATUSES) or not filters.statuses:
        open_ones = replace(filters, statuses=())
        query = select(Job.id).where(Job.status.in_(UNFINISHED), *jobs.matching(session, cluster_id, open_ones))
        unfinished = counted(session, query, MOST_COUNTED)
    if not filters.statuses or set(filters.statuses) & set(DEAD_LETTER_STATUSES):
        dead = counted(session, select(Job.id).where(*_dead(session, cluster_id, filters)), MOST_COUNTED)
    return Matching(unfinished, dead)


def retry(control: Control, cluster_id: str | None, filters: Filters, limit: int) -> Treated:
    """Queue up to ``limit`` dead letters that match again, cluster by cluster, the oldest first.

    Those of clusters that are gone are left. Raises Conflict when the one that is named is gone.
    """
    with control.database.transaction() as session:
        conditions = _dead(session, cluster_id, filters)
        having = select(Job.cluster_id).where(*conditions).distinct()
        found = session.scalars(select(Cluster).where(Cluster.id.in_(having)).order_by(Cluster.id)).all()
    if cluster_id is not None and found and found[0].intent is Intent.GONE:
        raise Conflict(f"a cluster that is {found[0].status} takes no jobs", status=str(found[0].status))
    done = 0
    for cluster in found:
        if cluster.intent is not Intent.GONE and done < limit:
            here = [*conditions, Job.cluster_id == cluster.id]
            done += dead_letters.retry_where(control, cluster, here, limit - done)
    return Treated(done, *dead_letters.left(control, conditions))


def discard(control: Control, cluster_id: str | None, filters: Filters, limit: int) -> Treated:
    """Put up to ``limit`` dead letters that match aside."""
    with control.database.transaction() as session:
        conditions = _dead(session, cluster_id, filters)
    return Treated(dead_letters.discard_where(control, conditions, limit), dead_letters.left(control, conditions)[0])


def _dead(session: Session, cluster_id: str | None, filters: Filters) -> list[ColumnElement[bool]]:
    named = tuple(one for one in filters.statuses if one in DEAD_LETTER_STATUSES)
    statuses: tuple[JobStatus, ...] = named or (DEAD_LETTER_STATUSES if not filters.statuses else ())
    narrowed = jobs.matching(session, cluster_id, replace(filters, statuses=()))
    return [*dead_letters.DEAD, Job.status.in_(statuses), *narrowed]
