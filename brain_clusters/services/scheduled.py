"""Jobs that wait for their ETA: in PostgreSQL, until shortly before it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from brain_clusters.broker.client import was_refused
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.states import JobStatus
from brain_clusters.errors import TemporaryError
from brain_clusters.services.control import Control
from brain_clusters.services.observation import epoch
from brain_clusters.services.outcomes import queue_of

log = logging.getLogger(__name__)

HORIZON_TICKS = 2.0
# One batch is a third of a second's publishing; what is left after so many is the next call's.
_BATCH = 2000
_MOST_BATCHES = 5
# How far ahead jobs are told apart by the second: no start should take longer.
_AHEAD_SECONDS = 120
_WAITS_FOR_ETA = (Job.status == JobStatus.QUEUED, Job.published_at.is_(None), Job.eta.is_not(None))


def horizon_seconds(control: Control) -> float:
    """Return how long before their time jobs go to Redis: until the tick after the next."""
    return HORIZON_TICKS * control.settings.tick_interval_seconds


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
            if was_refused(exc):
                log.error("queue=%s takes no job: %s", queue, exc.__cause__)  # another one may
                continue
            if not sent:
                raise
            log.warning("queue=%s: %d jobs that are due are delivered later: %s", queue, len(batch), exc)
            break
        sent += [job.id for job in batch]
    return sent


@dataclass(slots=True)
class Etas:
    """Jobs of one group that wait in PostgreSQL for their ETA. due_at: of the first, in seconds since the epoch.

    by_second: how many are due within so many seconds from now, rounded up, as far as _AHEAD_SECONDS.
    """

    count: int
    due_at: float
    by_second: dict[int, int] = field(default_factory=dict)

    def within(self, seconds: float) -> int:
        """Return how many are due within ``seconds``."""
        return sum(count for second, count in self.by_second.items() if second <= seconds)


def waiting(session: Session) -> dict[tuple[str, str], Etas]:
    """Return the jobs that are not published yet and wait for their ETA, by cluster and group."""
    by_group = (Job.cluster_id, Job.group_name)
    found = {
        (cluster_id, group): Etas(count, due)
        for cluster_id, group, count, due in session.execute(
            select(*by_group, func.count(), epoch(func.min(Job.eta))).where(*_WAITS_FOR_ETA).group_by(*by_group)
        )
    }
    if found:
        second = func.ceil(epoch(Job.eta - func.now()))
        ahead = Job.eta < func.now() + timedelta(seconds=_AHEAD_SECONDS)
        query = select(*by_group, second, func.count()).where(*_WAITS_FOR_ETA, ahead).group_by(*by_group, second)
        for cluster_id, group, seconds, count in session.execute(query):
            found[cluster_id, group].by_second[int(seconds)] = count
    return found
