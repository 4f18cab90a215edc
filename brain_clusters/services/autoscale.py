"""The tick: one look at all clusters, decisions by ``domain.scaling``, commands through everyone's door."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Float, Integer, Text, case, cast, column, func, select, update, values
from sqlalchemy.orm import Session

from brain_clusters.broker.backlog import Reading
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain import scaling
from brain_clusters.domain.commands import (
    Command,
    DestroyCluster,
    HibernateCluster,
    Origin,
    ReactivateCluster,
    ScaleCluster,
)
from brain_clusters.domain.states import READY_AGENT_STATUSES, AgentStatus, ClusterStatus, Intent
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.services import lifecycle, metrics, observation, operations, outcomes, ticks
from brain_clusters.services.control import Control
from brain_clusters.services.observation import SeenCluster
from brain_clusters.services.reconcile import Followup, act, reconcile

log = logging.getLogger(__name__)

_ACTOR = "autoscaler"


def tick(control: Control) -> bool:
    """Run one tick, unless one ran just now; return whether it did.

    With Redis away nothing is decided: unknown is not zero. With PostgreSQL away it raises TemporaryError.
    """
    # A little less than the interval, or the beat's own jitter would skip every second tick.
    if not ticks.due(control, "autoscale", 0.8 * control.settings.tick_interval_seconds):
        return False
    operations.sweep(control)
    with control.database.transaction() as session:
        clusters = observation.load(session)
    try:
        outcomes.collect(control)
        reading = observation.read(control, clusters)
    except TemporaryError as exc:
        log.warning("tick decides nothing: %s", exc)
        _settle(control, clusters)
        return True
    _write_observed(control, clusters, reading)
    for cluster in clusters.values():
        _decide(control, cluster)
    _settle(control, clusters)
    outcomes.sweep(control, _idle_groups(clusters, reading))
    metrics.sample(control, clusters, reading)
    return True


# --- decisions --------------------------------------------------------------------------------------------------


def _decide(control: Control, cluster: SeenCluster) -> None:
    with _alone(cluster):
        found = _command(cluster, control.settings.start_timeout_seconds)
        if found is not None:
            command, reason = found
            inputs = {"signals": scaling.as_inputs(cluster.signals)}
            lifecycle.submit(control, command, Origin(_ACTOR, reason, inputs=inputs))


@contextmanager
def _alone(cluster: SeenCluster) -> Iterator[None]:
    """Keep what goes wrong with one cluster from all others. A server that is away concerns them all, and passes."""
    try:
        yield
    except TemporaryError:
        raise
    except BrainError as exc:
        log.info("cluster=%s stays as it is: %s", cluster.id, exc)  # most often another command came first
    except Exception:
        log.exception("cluster=%s was left out of this tick", cluster.id)


def _command(cluster: SeenCluster, start_timeout: float) -> tuple[Command, str] | None:
    """Return the command that ``cluster`` needs now and why, or None."""
    if cluster.intent is Intent.ASLEEP:
        return _for_sleeper(cluster)
    # One that is being started is left alone; one whose agents never come is sized all the same, after a while.
    starting = cluster.status in (ClusterStatus.PLANNING, ClusterStatus.SPAWNING)
    if cluster.intent is not Intent.RUNNING or (starting and cluster.since_change < start_timeout):
        return None
    view, whole = cluster.view(), cluster.whole
    if cluster.status is ClusterStatus.ACTIVE:
        sleep = scaling.hibernation(view, whole)
        if sleep is not None:
            return HibernateCluster(cluster_id=cluster.id, if_generation=cluster.generation), sleep.reason
    decision = scaling.decide(view, cluster.signals)
    if not decision.groups:
        return None
    command = ScaleCluster(cluster_id=cluster.id, groups=decision.groups, if_generation=cluster.generation)
    return command, decision.reason


def _for_sleeper(cluster: SeenCluster) -> tuple[Command, str] | None:
    lifecycle_rules = cluster.blueprint.lifecycle
    waiting = {name: found.ready or 0 for name, found in cluster.signals.items() if found.ready}
    if lifecycle_rules.reactivate.new_task_received and sum(waiting.values()) > cluster.asleep_backlog:
        reason = f"{sum(waiting.values())} jobs wait for a sleeping cluster"
        return ReactivateCluster(cluster_id=cluster.id, wanted_groups=tuple(waiting)), reason
    limit = lifecycle_rules.destroy.hibernated_seconds
    if limit is not None and cluster.hibernated_seconds is not None and cluster.hibernated_seconds >= limit:
        reason = f"it slept for {cluster.hibernated_seconds:.0f} s, as destroy_conditions ask for"
        return DestroyCluster(cluster_id=cluster.id, if_generation=cluster.generation), reason
    return None


def _settle(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    """Look again at clusters on their way: deadlines pass, and an agent's first beat may have told nobody."""
    for cluster in clusters.values():
        if cluster.unfinished:
            with _alone(cluster):
                followup = Followup()
                with control.database.transaction() as session:
                    followup = reconcile(session, cluster.id)
                act(control, followup)


def _idle_groups(clusters: Mapping[str, SeenCluster], reading: Reading) -> dict[tuple[str, str], str]:
    """Return the queue of every group where nothing waits, nothing is held, and no agent says that it works.

    After a loss in Redis only the agent itself knows that it works on a job.
    """
    working = {
        (cluster.id, agent.group)
        for cluster in clusters.values()
        for agent in cluster.agents
        if reading.beats.get(agent.agent_id, {}).get("in_flight")
    }
    return {
        (cluster.id, group.name): cluster.queue(group)
        for cluster in clusters.values()
        for group in cluster.blueprint.groups
        if cluster.intent is not Intent.GONE
        and cluster.signals[group.name].backlog == 0
        and reading.queues[cluster.queue(group)].held == 0
        and (cluster.id, group.name) not in working
    }


# --- what was observed ------------------------------------------------------------------------------------------


def _write_observed(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> None:
    """Write what changed, in two statements for all clusters and agents."""
    cluster_rows, agent_rows = [], []
    for cluster in clusters.values():
        whole = cluster.whole
        load = round(min(100.0, whole.load_percent or 0.0), 1)
        asleep = min(cluster.asleep_backlog, whole.ready or 0)
        works = bool(whole.backlog) and cluster.intent is Intent.RUNNING
        if load != cluster.load_percentage or asleep != cluster.asleep_backlog or works:
            cluster_rows.append((cluster.id, load, asleep, int(works)))
            cluster.asleep_backlog = asleep
            cluster.idle_seconds = 0.0 if works else cluster.idle_seconds
        agent_rows.extend(_agent_rows(cluster, reading))
    with control.database.transaction() as session:
        _update_clusters(session, cluster_rows)
        _update_agents(session, agent_rows)


def _agent_rows(cluster: SeenCluster, reading: Reading) -> list[tuple[Any, ...]]:
    """Return the rows of agents whose beat says something else than the table."""
    rows = []
    for agent in cluster.agents:
        beat = reading.beats.get(agent.agent_id)
        if beat is None:
            continue
        if agent.status is AgentStatus.STARTING:
            cluster.unfinished = True
        status = AgentStatus.BUSY if reading.held[agent.agent_id] else AgentStatus.IDLE
        counts = (beat["completed"], beat["failed"])
        if status is not agent.status or counts != (agent.tasks_completed, agent.tasks_failed):
            rows.append((agent.agent_id, str(status), *counts, beat["service_time"] or 0.0, beat["idle_since"]))
    return rows


def _update_clusters(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    given = values(
        column("id", Text), column("load", Float), column("asleep", Integer), column("works", Integer), name="given"
    ).data(sorted(rows))
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(
            load_percentage=given.c.load,
            asleep_backlog=given.c.asleep,
            last_active=case((given.c.works == 1, func.now()), else_=Cluster.last_active),
        )
        .execution_options(synchronize_session=False)
    )


def _update_agents(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write counters, and idle or busy; a starting agent with a beat is ready, a draining one stays draining.

    Rows that a host or an operation writes this moment are left to the next tick: waiting could be a deadlock.
    """
    seen = select(Agent.agent_id).where(Agent.agent_id.in_([row[0] for row in rows]))
    free = set(session.scalars(seen.with_for_update(skip_locked=True))) if rows else set()
    rows = [row for row in rows if row[0] in free]
    if not rows:
        return
    given = values(
        column("agent_id", Text), column("status", Text), column("completed", Integer), column("failed", Integer),
        column("seconds", Float), column("idle_since", Float), name="given",
    ).data(sorted(rows))  # fmt: skip
    movable = Agent.status.in_((AgentStatus.STARTING, *READY_AGENT_STATUSES))
    session.execute(
        update(Agent)
        .where(Agent.agent_id == given.c.agent_id)
        .values(
            status=case((movable, cast(given.c.status, Agent.status.type)), else_=Agent.status),
            ready_at=func.coalesce(Agent.ready_at, func.now()),
            tasks_completed=given.c.completed,
            tasks_failed=given.c.failed,
            avg_task_duration=given.c.seconds,
            last_active=func.to_timestamp(given.c.idle_since),
        )
        .execution_options(synchronize_session=False)
    )
