"""Single agents, by a person's word: looked at, told to leave, or replaced."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Job
from brain_clusters.domain.states import (
    FINISHED_JOB_STATUSES,
    LIVE_AGENT_STATUSES,
    AgentStatus,
    Intent,
    RolloutStatus,
)
from brain_clusters.errors import Conflict, NotFound
from brain_clusters.services import history, leaving, lifecycle, rollouts
from brain_clusters.services.control import Control
from brain_clusters.services.reconcile import Followup, act, reconcile

_MOST_JOBS = 20


def get(session: Session, agent_id: str) -> Agent:
    """Return an agent, also one that is gone; raise NotFound."""
    found = session.scalars(select(Agent).where(Agent.agent_id == agent_id)).first()
    if found is None:
        raise NotFound(f"there is no agent {agent_id!r}")
    return found


def latest_jobs(session: Session, agent: Agent) -> Sequence[Job]:
    """Return the jobs that an agent did last, the newest first, at most _MOST_JOBS; rows only."""
    query = select(Job).where(Job.cluster_id == agent.cluster_id, Job.agent_id == agent.agent_id)
    return session.scalars(query.order_by(Job.created_at.desc()).limit(_MOST_JOBS)).all()


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Return those of ``jobs`` that are not finished."""
    return [job for job in jobs if job.status not in FINISHED_JOB_STATUSES]


def drain(control: Control, agent_id: str, actor: str) -> Agent:
    """Have an agent finish what it does and leave; its group gets a new one, as its desired count stays.

    That one is started at once while max_workers leaves room, else when this one is gone. Raises NotFound, and
    Conflict for an agent that is gone.
    """
    return _send_away(control, agent_id, actor, at_once=True)


def replace(control: Control, agent_id: str, actor: str) -> Agent:
    """Have a new agent started in place of one, which leaves when that has proved itself.

    The pace is that of the blueprint's rollouts: without room for one more, the old one leaves first. Raises NotFound,
    and Conflict for an agent that is gone or leaves already, and where nothing is replaced now.
    """
    return _send_away(control, agent_id, actor, at_once=False)


def _send_away(control: Control, agent_id: str, actor: str, *, at_once: bool) -> Agent:
    followup, woken = Followup(), False
    with control.database.transaction() as session:
        agent = get(session, agent_id)
        cluster = lifecycle.locked(session, agent.cluster_id)
        leaving.lock_agents(session, [agent_id])
        session.refresh(agent)
        _check(agent, at_once=at_once)
        if not at_once:
            _check_pace(session, cluster.id, cluster.intent)
        agent.reason = leaving.SENT_AWAY
        session.flush()
        if at_once and agent.status is not AgentStatus.DRAINING:
            woken = leaving.drain(session, [agent], [agent_id])
        told = "it is to finish what it does and leave" if at_once else "a new one is to take its place"
        kind = "agent.drained" if at_once else "agent.replaced"
        history.record(session, kind, told, cluster_id=cluster.id, actor=actor, agent_id=agent_id,
                       data={"group": agent.group_name})  # fmt: skip
        followup = reconcile(session, cluster.id)
        session.refresh(agent)
    followup.wake = followup.wake or woken
    act(control, followup)
    return agent


def _check(agent: Agent, *, at_once: bool) -> None:
    if agent.status not in LIVE_AGENT_STATUSES:
        raise Conflict(f"the agent is {agent.status}; only one that lives can leave", status=str(agent.status))
    if agent.status is AgentStatus.DRAINING and not at_once:
        raise Conflict("the agent leaves already; a new one comes by itself", status=str(agent.status))


def _check_pace(session: Session, cluster_id: str, intent: Intent) -> None:
    if intent is not Intent.RUNNING:
        raise Conflict(f"the cluster is to be {intent}, so all its agents leave and none is replaced")
    newest = rollouts.newest(session, cluster_id)
    if newest is not None and newest.status in (RolloutStatus.PAUSED, RolloutStatus.FAILED):
        told = "so no agent is replaced; resume or undo it, or drain this agent"
        raise Conflict(f"a rollout of the cluster is {newest.status}, {told}", status=str(newest.status))
