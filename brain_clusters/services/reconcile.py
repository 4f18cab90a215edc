"""Bringing one cluster from what is there towards what is wanted. Level-triggered: it may run at any time, twice too.

Called by whoever learned something: a worker that runs an operation, a host whose agents came or went, the tick.
The caller holds the transaction; ``act`` on the outcome comes after its commit.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select, true, update
from sqlalchemy.orm import Session

from brain_clusters import logs, tracing
from brain_clusters.broker import backlog, shared
from brain_clusters.broker.delegating import Joins
from brain_clusters.db.models import Agent, Cluster, Job, StoredBlueprint
from brain_clusters.domain import planning
from brain_clusters.domain.planning import Census
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import (
    FINISHED_JOB_STATUSES,
    LIVE_AGENT_STATUSES,
    AgentStatus,
    ClusterStatus,
    Intent,
    JobStatus,
)
from brain_clusters.errors import TemporaryError
from brain_clusters.services import blueprints, history, leaving, lifecycle, rolling, served
from brain_clusters.services.control import Control
from brain_clusters.services.endings import end_operations


@dataclass(slots=True)
class Followup:
    """What is to be done once the transaction is committed: hosts to wake, queues to delete, and what to forget."""

    wake: bool = False
    purge: list[str] = field(default_factory=list)
    unpark: Blueprint | None = None
    forget: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def reconcile(session: Session, cluster_id: str, first: Sequence[str] = ()) -> Followup:
    """Plan and write the rows of one cluster: new agents, drains begun and undone, status, operations that are done.

    first: groups whose agents are to be started before all others, as a job waits for them.
    """
    cluster = lifecycle.locked(session, cluster_id)
    followup = Followup()
    if cluster.status is ClusterStatus.DESTROYED:
        # Its last agent may have gone before the worker came to the command itself.
        end_operations(session, cluster, Census(0, 0, 0), done=True)
        return followup
    agents = _live(session, cluster_id)
    course = rolling.look(session, cluster, agents)  # before the blueprint is read: it may give the former one back
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    plan = leaving.make_plan(session, cluster, blueprint, agents, course)
    if plan.drain or plan.undo:
        session.flush()
        leaving.lock_agents(session, [*plan.drain, *plan.undo])
        followup.wake = leaving.drain(session, agents, plan.drain) if plan.drain else False
        followup.wake |= leaving.undo(session, agents, plan.undo) if plan.undo else False
    if plan.start:
        order = [group.name for group in blueprint.groups]
        wanted_first = dict(sorted(plan.start.items(), key=lambda item: (item[0] not in first, order.index(item[0]))))
        followup.wake = True
        agents = [*agents, *_add(session, cluster, blueprint, agents, wanted_first)]
    if course is not None:
        followup.unpark = course.unpark
    _observe(session, cluster, agents, followup, replaced=0 if course is None else course.replaced)
    return followup


def reconcile_each(control: Control, cluster_ids: Iterable[str]) -> None:
    """Reconcile clusters one after the other, and act on each."""
    for cluster_id in sorted(cluster_ids):
        with logs.bound(cluster_id=cluster_id):
            followup = Followup()
            with control.database.transaction() as session:
                followup = reconcile(session, cluster_id)
            act(control, followup)


def act(control: Control, followup: Followup) -> None:
    """Do what a committed reconcile asked for. A failure is repaired by the next look: hosts look every second."""
    if followup.wake:
        control.wake_hosts()
    if followup.purge or followup.forget:
        with suppress(TemporaryError):  # nobody reads these queues any more, and pruning deletes them once more
            backlog.purge(control.broker.redis, followup.purge)
            shared.forget(control.broker.redis, followup.forget)
            Joins(control.broker.redis, ttl_seconds=control.settings.job_ttl_seconds).forget(followup.failed)
    if followup.unpark is not None:
        served.unpark(control, followup.unpark)


def _live(session: Session, cluster_id: str) -> list[Agent]:
    return list(
        session.scalars(
            select(Agent)
            .where(Agent.cluster_id == cluster_id, Agent.status.in_(LIVE_AGENT_STATUSES))
            .order_by(Agent.spawned_at, Agent.agent_id)
        )
    )


# --- agents that come -------------------------------------------------------------------------------------------


def _add(
    session: Session, cluster: Cluster, blueprint: Blueprint, agents: Sequence[Agent], start: Mapping[str, int]
) -> list[Agent]:
    """Insert the rows of new agents in the order of ``start``, which is the order that hosts start them in."""
    now = session.scalars(select(func.clock_timestamp())).one()
    failures = _recent_failures(session, cluster.id, young_of=cluster.blueprint_version)
    groups = {group.name: group for group in blueprint.groups}
    added: list[Agent] = []
    for name, count in start.items():
        delay = planning.restart_delay_seconds(failures.get(name, 0))
        for _ in range(count):
            # Hosts start agents in the order of this time, so no two may share it.
            spawned_at = now + timedelta(microseconds=len(added))
            added.append(_row(cluster, groups[name], spawned_at, delay))
    heads = {agent.group_name: agent.id for agent in reversed([*agents, *added])}
    for agent in added:
        agent.supervisor_id = heads.get(_boss(groups[agent.group_name], blueprint))
    # The upper ones first: each row refers to its supervisor's.
    rows: list[Agent] = sorted(added, key=lambda agent: _depth(groups[agent.group_name], blueprint))
    session.add_all(rows)
    session.flush()
    return added


def _depth(group: AgentGroup, blueprint: Blueprint) -> int:
    boss = blueprint.group(_boss(group, blueprint))
    return 0 if boss is None else 1 + _depth(boss, blueprint)


def _boss(group: AgentGroup, blueprint: Blueprint) -> str:
    """Return the name of the group that ``group`` reports to; the supervisor reports to nobody."""
    if group.reports_to is not None:
        return group.reports_to
    return "" if group.name == blueprint.supervisor.name else blueprint.supervisor.name


def _row(cluster: Cluster, group: AgentGroup, spawned_at: datetime, delay_seconds: float) -> Agent:
    return Agent(
        id=uuid.uuid4(),
        cluster_id=cluster.id,
        agent_id=f"{cluster.id[:60]}.{group.slug[:40]}.{secrets.token_hex(4)}",
        role=group.role,
        group_name=group.name,
        capabilities=list(group.capabilities),
        skills=list(group.skills),
        config=dict(group.config),
        driver=group.driver,
        cpu=group.engine.resources.cpu or 0.0,
        memory_bytes=group.engine.resources.memory_bytes or 0,
        blueprint_version=cluster.blueprint_version,
        status=AgentStatus.STARTING,
        spawned_at=spawned_at,
        trace=tracing.carrier() or None,
        not_before=spawned_at + timedelta(seconds=delay_seconds) if delay_seconds else None,
    )


def _recent_failures(session: Session, cluster_id: str, *, young_of: str | None = None) -> dict[str, int]:
    """Return by group how many agents died unasked in the last FAILURE_WINDOW_SECONDS. young_of: only young ones of
    that version of the blueprint.

    Many that die at once, having worked for long, are replaced at once. Those that die young would die again.
    """
    window = func.now() - timedelta(seconds=planning.FAILURE_WINDOW_SECONDS)
    youth = timedelta(seconds=planning.YOUTH_SECONDS)
    died_young = or_(Agent.ready_at.is_(None), Agent.stopped_at - Agent.ready_at < youth)
    young = and_(Agent.blueprint_version == young_of, died_young)
    age = true() if young_of is None else young
    rows = session.execute(
        select(Agent.group_name, func.count())
        .where(Agent.cluster_id == cluster_id, Agent.status == AgentStatus.FAILED, Agent.stopped_at > window, age)
        .group_by(Agent.group_name)
    )
    return dict(rows.all())


# --- what is seen -----------------------------------------------------------------------------------------------


def _observe(session: Session, cluster: Cluster, agents: Sequence[Agent], followup: Followup, *, replaced: int) -> None:
    """Compute status and health, and end the operations that are done or late. replaced: see ``planning.converged``."""
    census = Census.of([agent.status for agent in agents])
    done = planning.converged(cluster.intent, cluster.target_workers, census, replaced=replaced)
    cluster.ready_since_wake = cluster.ready_since_wake or (done and cluster.intent is Intent.RUNNING)
    cluster.current_workers = census.ready + census.draining
    failures = sum(_recent_failures(session, cluster.id).values())
    cluster.health_score = planning.health_score(cluster.intent, cluster.target_workers, census, failures)
    status = planning.cluster_status(
        cluster.intent, cluster.target_workers, census, ready_since_wake=cluster.ready_since_wake, planned=True,
        replaced=replaced,
    )  # fmt: skip
    if status is not cluster.status:
        _change_status(session, cluster, status, followup)
    end_operations(session, cluster, census, done)


def _change_status(session: Session, cluster: Cluster, status: ClusterStatus, followup: Followup) -> None:
    history.record(
        session, "cluster.status", f"from {cluster.status} to {status}", cluster_id=cluster.id,
        data={"from": str(cluster.status), "to": str(status)},
    )  # fmt: skip
    cluster.status = status
    if status is ClusterStatus.ACTIVE:
        cluster.started_at = cluster.started_at or func.now()
    elif status is ClusterStatus.HIBERNATED:
        cluster.hibernated_at = func.now()
        cluster.load_percentage = 0.0
    elif status is ClusterStatus.DESTROYED:
        _bury(session, cluster, followup)


def _bury(session: Session, cluster: Cluster, followup: Followup) -> None:
    """The last agent of a destroyed cluster is gone: what waits is failed, its queues are deleted."""
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    cluster.destroyed_at = func.now()
    cluster.load_percentage = 0.0
    error = {"type": "ClusterDestroyed", "message": "the cluster was destroyed before this job was done"}
    given_up = session.scalars(
        update(Job)
        .where(Job.cluster_id == cluster.id, Job.status.not_in(FINISHED_JOB_STATUSES))
        .values(status=JobStatus.FAILED, error=error, payload=None, finished_at=func.now())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    followup.failed.extend(given_up)
    cluster.tasks_failed += len(given_up)
    session.execute(
        update(StoredBlueprint)
        .where(StoredBlueprint.id == cluster.blueprint_id, StoredBlueprint.version == cluster.blueprint_version)
        .values(instances_active=func.greatest(StoredBlueprint.instances_active - 1, 0))
        .execution_options(synchronize_session=False)
    )
    followup.forget.append(cluster.id)
    followup.purge.extend(served.own_queues(cluster.id, blueprint))
    followup.unpark = blueprint if blueprint.foreign else None
    followup.purge.extend(served.left_queues(session, cluster))
