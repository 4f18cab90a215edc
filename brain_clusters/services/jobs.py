"""Jobs as they stand: rows, with what the agents of unfinished ones told last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, any_, cast, select
from sqlalchemy.orm import Session

from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.notes import PROGRESS_FIELD, JobNotes
from brain_clusters.db import scope
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.states import FINISHED_JOB_STATUSES, JobStatus
from brain_clusters.errors import NotFound, TemporaryError
from brain_clusters.services import submitting
from brain_clusters.services.control import Control
from brain_clusters.services.outcomes import time_of
from brain_clusters.services.paging import Page, page

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
# How many pages of rows one page of jobs may take, where agents' records decide which of them it shows.
_MOST_LOOKS = 10
_FEW_IDS = 1000
# A count reads every row that it counts, and nobody reads on to the end of more than these.
MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs are meant: those that match all that is stated. since, until: of their creation.

    capability: what a job asked for; error: its error_key; parent: the job that handed it down. search: the begin of
    its id, or the key that it was sent with.
    """

    statuses: tuple[JobStatus, ...] = ()
    group: str | None = None
    capability: str | None = None
    priority: str | None = None
    error: str | None = None
    parent: str | None = None
    search: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what rows must fulfil, but for ``search``, which ``matching`` adds.

        That a job runs only its agent's record tells, and so it counts as queued.
        """
        wanted = set(self.statuses) | (set(UNFINISHED) if JobStatus.RUNNING in self.statuses else set())
        equal = (
            (Job.group_name, self.group),
            (Job.options["capability"].astext, self.capability),
            (Job.priority, self.priority),
            (Job.error_key, self.error),
            (Job.parent_id, self.parent),
        )
        found: list[ColumnElement[bool]] = [column == value for column, value in equal if value is not None]
        if wanted:
            found.append(Job.status.in_(sorted(wanted)))
        if self.since is not None:
            found.append(Job.created_at >= self.since)
        if self.until is not None:
            found.append(Job.created_at < self.until)
        return found

    @property
    def is_exact(self) -> bool:
        """Whether the rows alone decide: queued and running jobs are asked for together, or not at all."""
        return not self.statuses or (JobStatus.QUEUED in self.statuses) is (JobStatus.RUNNING in self.statuses)


def get(control: Control, job_id: str) -> Job:
    """Return a job as it stands now, with what its agent told last; raise NotFound.

    Also finds jobs that another Celery client queued, as soon as an agent has begun them.
    """
    with control.database.transaction() as session:
        job = session.get(Job, job_id)
    return with_reports(control, [job] if job else [], [job_id])[job_id]


def progress(control: Control, job: Job) -> Any:
    """Return what a running job told last of its progress, or None."""
    if job.status is not JobStatus.RUNNING:
        return None
    try:
        return JobNotes(control.broker.redis).read(job.id, PROGRESS_FIELD)
    except (TemporaryError, ValueError):  # agents run users' code, which can write there
        return None


def matching(session: Session, cluster_id: str | None, filters: Filters) -> list[ColumnElement[bool]]:
    """Return what rows of a cluster must fulfil, or of all clusters that the caller sees; raise NotFound."""
    found = filters.conditions()
    if cluster_id is not None:
        if session.get(Cluster, cluster_id) is None:
            raise NotFound(f"there is no cluster {cluster_id!r}")
        found.append(Job.cluster_id == cluster_id)
    if filters.search is not None:
        found.append(_searched(session, cluster_id, filters.search))
    return found


def _searched(session: Session, cluster_id: str | None, text: str) -> ColumnElement[bool]:
    """Return the condition of jobs whose id begins with ``text``, or that were sent with it as their key.

    Ids that are few are looked up first: beside an order by time the planner would rather read all rows.
    """
    places = session.scalars(select(Cluster.id)).all() if cluster_id is None else [cluster_id]
    named = [text, *(submitting.keyed_id(place, text) for place in places)]
    ids = list(session.scalars(select(Job.id).where(Job.id == any_(cast(named, ARRAY(Text))))))
    begins = Job.id.startswith(text, autoescape=True)
    if not ids:
        ids = list(session.scalars(select(Job.id).where(begins).limit(_FEW_IDS)))
    return begins if len(ids) == _FEW_IDS else Job.id == any_(cast(ids, ARRAY(Text)))


def listing(control: Control, cluster_id: str | None, filters: Filters, *, limit: int, cursor: str | None) -> Page[Job]:
    """Return a page of a cluster's jobs, or of all clusters, newest first. Filters see what was stored: up to two
    seconds ago.

    Whether an unfinished job runs is read as it is now. Where that decides, ``total`` counts all unfinished ones, and
    a page may be shorter though more follow. Over all clusters ``total`` counts up to MOST_COUNTED.
    """
    items: list[Job] = []
    total, look = 0, 0
    most = MOST_COUNTED if cluster_id is None else None
    while True:
        with control.database.transaction() as session:
            query = select(Job).where(*matching(session, cluster_id, filters))
            found = page(
                session, query, (Job.created_at, Job.id), lambda row: (row.created_at, row.id),
                limit=limit - len(items), cursor=cursor, count_to=most,
            )  # fmt: skip
        fresh = with_reports(control, found.items, [])
        rows = [fresh[job.id] for job in found.items]
        items += rows if filters.is_exact else [job for job in rows if job.status in filters.statuses]
        total, cursor, look = total or found.total, found.next_cursor, look + 1
        if filters.is_exact or cursor is None or len(items) == limit or look == _MOST_LOOKS:
            return Page(items, total, cursor)


def with_reports(control: Control, jobs: Sequence[Job], extra: Sequence[str]) -> dict[str, Job]:
    """Return ``jobs`` by id, those that are not finished updated from their agents' records; raise NotFound.

    extra: ids of jobs that have to be found, be it in a record alone.
    """
    found = {job.id: job for job in jobs}
    asked = [job.id for job in jobs if job.status not in FINISHED_JOB_STATUSES]
    asked += [job_id for job_id in extra if job_id not in found]
    reports = _reports(control, asked)
    for job_id, report in reports.items():
        if job_id in found:
            _apply(found[job_id], report)
    found |= known_by_reports(control, {one: report for one, report in reports.items() if one not in found})
    for job_id in extra:
        if job_id not in found:
            raise NotFound(f"there is no job {job_id!r}")
    return found


def known_by_reports(control: Control, reports: Mapping[str, JobReport]) -> dict[str, Job]:
    """Return jobs that have no row, by id, as their agents' records tell of them: of clusters the caller may see."""
    seen = _seen(control, {one.cluster_id for one in reports.values()})
    return {job_id: _foreign(one) for job_id, one in reports.items() if one.cluster_id in seen}


def _seen(control: Control, cluster_ids: set[str]) -> Set[str]:
    """Return those of the clusters that the caller may see: a record in Redis is there for everybody."""
    named = {one for one in cluster_ids if one}
    if not named or not scope.tags():
        return named
    with control.database.transaction() as session:
        return set(session.scalars(select(Cluster.id).where(Cluster.id.in_(named))))


def _reports(control: Control, asked: Sequence[str]) -> Mapping[str, JobReport]:
    try:
        return JobRecords(control.broker.redis).get(asked) if asked else {}
    except TemporaryError:
        return {}


def _apply(job: Job, report: JobReport) -> None:
    job.status, job.attempts, job.agent_id = report.status, report.attempts, report.agent_id
    job.result, job.error, job.usage = report.result, report.error, report.usage
    job.started_at, job.finished_at = time_of(report.started_at), time_of(report.finished_at)


def _foreign(report: JobReport) -> Job:
    started = time_of(report.started_at) or datetime.now(UTC)
    job = Job(
        id=report.id, cluster_id=report.cluster_id, group_name=report.group_name, created_at=started,
        priority="normal", options={},
    )  # fmt: skip
    _apply(job, report)
    return job
