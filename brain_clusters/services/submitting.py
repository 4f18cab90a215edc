"""Jobs accepted: all of a request in PostgreSQL, then in Redis, and whoever has to do them is woken."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ARRAY, DateTime, Text, cast, func, literal, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from brain_clusters import tracing
from brain_clusters.broker import names
from brain_clusters.db.bulk import Columns, records_of
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.commands import Origin, ReactivateCluster, ScaleCluster
from brain_clusters.domain.sleeping import job_wakes
from brain_clusters.domain.specs import AgentGroup
from brain_clusters.domain.states import Intent
from brain_clusters.errors import BrainError, Conflict, NotFound, TemporaryError
from brain_clusters.services import audit, blueprints, desired, lifecycle
from brain_clusters.services.control import Control
from brain_clusters.services.newjobs import Accepted, NewJob, accepted
from brain_clusters.services.scheduled import horizon_seconds

log = logging.getLogger(__name__)

_TIME = DateTime(timezone=True)
_COLUMNS: Columns = {
    "id": Text, "group_name": Text, "payload": postgresql.JSONB, "created_at": _TIME, "eta": _TIME,
    "priority": Text, "options": postgresql.JSONB, "expires_at": _TIME,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that were accepted at once, in the order of the request, and their cluster as it stood."""

    cluster: Cluster
    jobs: list[Accepted]

    @property
    def new(self) -> list[Accepted]:
        """Those that were not there before."""
        return [job for job in self.jobs if not job.replayed]


def job_ids(cluster_id: str, news: Sequence[NewJob], seed: str) -> list[str]:
    """Return the ids of jobs: of one with a key by that, of another by ``seed`` (hex digits) and its place.

    So a request that is repeated with the seed of the first names the same jobs.
    """
    space = uuid.UUID(seed)
    return [
        keyed_id(cluster_id, new.key) if new.key else str(uuid.uuid5(space, str(place)))
        for place, new in enumerate(news)
    ]


def keyed_id(cluster_id: str, key: str) -> str:
    """Return the id of the job that was sent to a cluster with ``key``."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{cluster_id}\0{key}"))


def record(
    session: Session, cluster_id: str, news: Sequence[NewJob], *, seed: str | None = None, listed: bool = False
) -> Submission:
    """Accept jobs, all or none: once the caller commits, none is ever lost.

    listed: faults name the place in the list. Raises NotFound, Conflict, or InvalidInput with all faults.
    """
    # The shared lock orders this against commands: jobs are accepted either before a hibernation or after it.
    cluster = session.scalars(select(Cluster).where(Cluster.id == cluster_id).with_for_update(read=True)).first()
    if cluster is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    if cluster.intent is Intent.GONE:
        raise Conflict(f"a cluster that is {cluster.status} takes no jobs", status=str(cluster.status))
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    ids = job_ids(cluster_id, news, seed or uuid.uuid4().hex)
    with tracing.span(
        "job.submit", "producer", cluster_id=cluster_id, **tracing.messaging(None, "send", count=len(news))
    ):
        jobs = accepted(cluster_id, blueprint, news, ids, listed=listed)
        _insert(session, cluster_id, jobs)
    audit.note(session, cluster_id=cluster_id, detail=f"{len(jobs)} jobs" if listed else None)
    return Submission(cluster, jobs)


def _insert(session: Session, cluster_id: str, jobs: Sequence[Accepted]) -> None:
    """Store jobs in one statement, and note which of them were there before, by their keys."""
    given = records_of("given", _COLUMNS, (job.as_record() for job in jobs))
    # JSON's null in a record is read as none of SQL's, which says that the payload is not known.
    chosen = [func.coalesce(one, text("'null'::jsonb")) if one.name == "payload" else one for one in given.c]
    statement = postgresql.insert(Job).from_select(
        ["cluster_id", *_COLUMNS],
        # In one order, or two requests with the same keys could wait for each other.
        select(literal(cluster_id, Text), *chosen).order_by(given.c.id),
    )
    made = set(session.scalars(statement.on_conflict_do_nothing(index_elements=[Job.id]).returning(Job.id)))
    for job in jobs:
        job.replayed = job.id not in made
        made.discard(job.id)  # a second one with the same key in the same request


def submit(control: Control, cluster_id: str, news: Sequence[NewJob], *, listed: bool = False) -> Submission:
    """Accept and publish jobs. Raises as ``record``."""
    with control.database.transaction() as session:
        found = record(session, cluster_id, news, listed=listed)
    dispatch(control, found.cluster, found.new)
    return found


def dispatch(control: Control, cluster: Cluster, jobs: Sequence[Accepted]) -> None:
    """Publish accepted jobs, and wake whoever has to do them. What fails here is repaired by the sweep and the tick.

    A job that is due later than the next ticks stays where it is, and wakes nobody: ``scheduled.publish_due`` is for
    it. One that is due sooner waits in Redis, where an agent finds it to the millisecond.
    """
    soon = datetime.now(UTC) + timedelta(seconds=horizon_seconds(control))
    groups: dict[str, list[Accepted]] = {}
    for job in jobs:
        if job.eta is None or job.eta <= soon:
            groups.setdefault(job.group.slug, []).append(job)
    if groups:
        wake(control, cluster, [batch[0].group for batch in groups.values()])
    for slug, batch in groups.items():
        try:
            control.broker.publish_jobs(names.group_queue(cluster.id, slug), batch)
            with control.database.transaction() as session:
                mark_published(session, [job.id for job in batch])
        except TemporaryError as exc:
            told = {"cluster_id": cluster.id}
            log.warning("queue=%s: %d jobs are delivered later: %s", slug, len(batch), exc, extra=told)


def mark_published(session: Session, ids: Sequence[str]) -> None:
    """Note that jobs are in Redis."""
    session.execute(
        update(Job)
        .where(Job.id == func.any(cast(list(ids), ARRAY(Text))))
        .values(published_at=func.now())
        .execution_options(synchronize_session=False)
    )


def wake(control: Control, cluster: Cluster, groups: Sequence[AgentGroup]) -> None:
    """Start the cluster, or the first agent of each group without one, for jobs that were just accepted."""
    if cluster.paused:
        return
    asleep = cluster.intent is Intent.ASLEEP
    names_of = [group.name for group in groups if asleep or _lacks_agents(cluster, group)]
    room = len(names_of) if asleep else max(0, cluster.max_workers - sum(cluster.group_targets.values()))
    wanted = dict.fromkeys(names_of[:room], 1)
    if not wanted:
        return
    named = ", ".join(wanted)
    try:
        with control.database.transaction() as session:
            blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
        if desired.over_budget(cluster, blueprint) or not job_wakes(blueprint, asleep=asleep):
            return
        if asleep:
            origin = Origin("job", f"a job for {named} came while the cluster slept")
            lifecycle.submit(control, ReactivateCluster(cluster_id=cluster.id, groups=wanted), origin)
        else:
            origin = Origin("job", f"a job for {named} came and no agent serves that group")
            # Only as the cluster stands: of many jobs that come at once, one starts the agent.
            command = ScaleCluster(cluster_id=cluster.id, groups=wanted, if_generation=cluster.generation)
            lifecycle.submit(control, command, origin)
    except BrainError as exc:
        # Somebody else woke it first, or PostgreSQL went away after the job was accepted: the tick looks again.
        log.info("the cluster was not woken by a job: %s", exc, extra={"cluster_id": cluster.id})


def _lacks_agents(cluster: Cluster, group: AgentGroup) -> bool:
    return cluster.group_targets.get(group.name, 0) == 0 and group.count.maximum > 0
