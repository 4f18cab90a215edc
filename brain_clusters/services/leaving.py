"""Which agents of a cluster leave and which of those stay after all, and how that, and their end, is written down."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Cluster, Operation
from brain_clusters.domain import planning, rollouts
from brain_clusters.domain.commands import AUTOSCALER
from brain_clusters.domain.planning import AgentView, Plan
from brain_clusters.domain.rollouts import Course
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, Intent, OperationKind
from brain_clusters.services import history, observed
from brain_clusters.services.counting import Counts, Key

log = logging.getLogger(__name__)


def make_plan(
    session: Session, cluster: Cluster, blueprint: Blueprint, agents: Sequence[Agent], course: Course | None = None
) -> Plan:
    """Return what brings ``agents``, the live ones of ``cluster``, to what is wanted.

    course: how those of other versions of the blueprint are replaced, where there are any.
    """
    desired = cluster.group_targets if cluster.intent is Intent.RUNNING else {}
    lost_before = _lost_before(session, blueprint, agents)
    views = [view(agent, cluster.blueprint_version, lost_before) for agent in agents]

    def planned(*, busy_may_leave: bool) -> Plan:
        if course is None:
            return planning.plan(desired, views, busy_may_leave=busy_may_leave)
        return rollouts.step(desired, views, course.pace, course.now, busy_may_leave=busy_may_leave)

    plan = planned(busy_may_leave=True)
    busy = {agent.agent_id for agent in agents if agent.status is AgentStatus.BUSY}
    if busy.isdisjoint(plan.drain) or not _shrinks_by_itself(session, cluster):
        return plan
    return planned(busy_may_leave=False)


def view(agent: Agent, version: str, lost_before: datetime | None = None) -> AgentView:
    """Return what planning needs to know of an agent. version: that of the blueprint which its cluster is to have."""
    idle_since = agent.last_active if agent.status is AgentStatus.IDLE else None
    # One that was never ready is stopped for good, and one that is late is killed: both are as good as gone.
    late = lost_before is not None and agent.draining_at is not None and agent.draining_at < lost_before
    draining_since = None if late or agent.ready_at is None else agent.draining_at
    return AgentView(
        agent.agent_id, agent.group_name, agent.status, agent.spawned_at, idle_since, draining_since, agent.ready_at,
        is_wanted(agent, version), agent.host_id is not None, agent.retiring,
    )  # fmt: skip


def is_wanted(agent: Agent, version: str) -> bool:
    """Return whether an agent may stay: it is of ``version``, and nobody sent it away."""
    return agent.blueprint_version == version and not agent.retiring


def _lost_before(session: Session, blueprint: Blueprint, agents: Sequence[Agent]) -> datetime | None:
    """Return the time for which holds: whose drain began before it, is being killed. None when nobody is."""
    if blueprint.scaling.on_drain_timeout != "stop":
        return None
    if all(agent.status is not AgentStatus.DRAINING for agent in agents):
        return None
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now - timedelta(seconds=blueprint.scaling.drain_timeout_seconds)


def _shrinks_by_itself(session: Session, cluster: Cluster) -> bool:
    """Return whether the autoscaler, and no person, chose the present size: then who works stays until it is idle."""
    bounds = (Operation.request["min_workers"].astext, Operation.request["max_workers"].astext)
    newest = session.execute(
        select(Operation.kind, Operation.origin)
        .where(
            Operation.cluster_id == cluster.id,
            Operation.generation.is_not(None),  # None: it was refused
            # Another name or tag is no other size.
            or_(
                Operation.kind.not_in((OperationKind.UPDATE, OperationKind.ROLLOUT)),
                *(bound.is_not(None) for bound in bounds),
            ),
        )
        .order_by(Operation.created_at.desc(), Operation.generation.desc())
        .limit(1)
    ).first()
    return newest is not None and tuple(newest) == (OperationKind.SCALE, AUTOSCALER)


def lock_agents(session: Session, agent_ids: Iterable[str]) -> None:
    """Lock rows in an order that is the same for all: two who each hold what the other wants would be a deadlock."""
    wanted = select(Agent.id).where(Agent.agent_id.in_(list(agent_ids))).order_by(Agent.id)
    session.execute(wanted.with_for_update())


def drain(session: Session, agents: Sequence[Agent], leaving: Sequence[str]) -> bool:
    """Mark agents, whose rows are locked, as draining; return whether a host has to be told.

    Those that no host has taken yet are simply not started.
    """
    never_started = set(
        session.scalars(
            update(Agent)
            .where(Agent.agent_id.in_(leaving), Agent.host_id.is_(None), Agent.status == AgentStatus.STARTING)
            .values(status=AgentStatus.STOPPED, stopped_at=func.now())
            .returning(Agent.agent_id)
            .execution_options(synchronize_session=False)
        )
    )
    session.execute(
        update(Agent)
        .where(Agent.agent_id.in_(set(leaving) - never_started), Agent.status.in_(LIVE_AGENT_STATUSES))
        .values(status=AgentStatus.DRAINING, draining_at=func.now())
        .execution_options(synchronize_session=False)
    )
    return bool(_changed(session, agents, leaving, AgentStatus.DRAINING))


def undo(session: Session, agents: Sequence[Agent], staying: Sequence[str]) -> bool:
    """Have agents that drain, and whose rows are locked, go on; return whether a host has to be told.

    The tick tells which of them are busy. One that is just leaving is reported as ended, as it was asked to, and is
    replaced then.
    """
    session.execute(
        update(Agent)
        .where(Agent.agent_id.in_(staying), Agent.status == AgentStatus.DRAINING)
        .values(status=AgentStatus.IDLE, draining_at=None)
        .execution_options(synchronize_session=False)
    )
    found = _changed(session, agents, staying, AgentStatus.IDLE)
    if found:
        log.info("agents=%s go on instead of leaving", ",".join(found))
    return bool(found)


def _changed(session: Session, agents: Sequence[Agent], changed: Sequence[str], status: AgentStatus) -> list[str]:
    """Read again what was changed; return the agents that have ``status``."""
    found = []
    for agent in agents:
        if agent.agent_id in changed:
            session.refresh(agent)
            if agent.status is status:
                found.append(agent.agent_id)
    return found


# --- agents that are gone ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """An agent that is gone. error: why, for a person. asked: it left because it was told to. beat: its last one.

    lost: its host is, which is no fault of its own: where it had not begun, it did not fail.
    """

    agent_id: str
    host_id: str
    error: str | None = None
    asked: bool = False
    lost: bool = False
    beat: Mapping[str, Any] | None = None


def end_agents(session: Session, endings: Sequence[Ending]) -> set[str]:
    """Mark agents as stopped, or as failed when nobody asked them to leave; return the clusters of those that lived."""
    lock_agents(session, [one.agent_id for one in endings])
    ended = (_end_agent(session, one) for one in endings)
    return {cluster_id for cluster_id in ended if cluster_id is not None}


def _end_agent(session: Session, one: Ending) -> str | None:
    agent = session.scalars(
        select(Agent).where(Agent.agent_id == one.agent_id, Agent.status.in_(LIVE_AGENT_STATUSES))
    ).first()
    if agent is None:
        return None
    asked = one.asked or agent.status is AgentStatus.DRAINING or (one.lost and agent.ready_at is None)
    agent.status = AgentStatus.STOPPED if asked else AgentStatus.FAILED
    agent.stopped_at = func.now()
    agent.reason = one.error if one.lost else None
    if one.beat is not None:
        observed.take_over(agent, one.beat)
    if not asked:  # else the error of its last task that failed stays
        agent.last_error, agent.health_score = one.error, 0.0
        counts = Counts()
        counts.add(Key(agent.cluster_id, agent.group_name, "brain_agents_failed_total"))
        counts.write(session)
        history.record(
            session, "agent.died", one.error or "ended unasked", cluster_id=agent.cluster_id,
            agent_id=agent.agent_id, data={"group": agent.group_name, "host": one.host_id},
        )  # fmt: skip
    return agent.cluster_id
