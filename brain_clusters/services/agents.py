"""Single agents, by a person's word: looked at, told to leave, or replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from brain_clusters.broker import held
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Agent, Cluster, Job
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, Intent, JobStatus
from brain_clusters.errors import Conflict, NotFound, TemporaryError
from brain_clusters.services import audit, history, jobs, leaving, lifecycle
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
    """Return the jobs that an agent ended last, the newest first, at most _MOST_JOBS."""
    query = select(Job).where(Job.cluster_id == agent.cluster_id, Job.agent_id == agent.agent_id)
    return session.scalars(query.order_by(Job.created_at.desc()).limit(_MOST_JOBS)).all()


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job whose message an agent holds. begun: it works on it; else it is the next one. started_at: epoch seconds."""

    id: str
    begun: bool
    attempts: int = 0
    started_at: float | None = None


def jobs_of(control: Control, agent: Agent) -> Sequence[HeldJob] | None:
    """Return the jobs that an agent holds now, those it works on first; None when Redis is away and nobody knows.

    Tasks of another application are none of ours: of an agent with ``celery`` nothing is told.
    """
    if agent.status not in LIVE_AGENT_STATUSES:
        return []
    try:
        ids = held.job_ids(control.broker.redis, agent.agent_id)
        records = JobRecords(control.broker.redis).get(ids) if ids else {}
    except TemporaryError:
        return None
    found = [_held(job_id, records.get(job_id), agent) for job_id in ids]
    return sorted(found, key=lambda job: (not job.begun, job.started_at or 0.0))


def _held(job_id: str, record: JobReport | None, agent: Agent) -> HeldJob:
    # Its record may still be that of an attempt before, of another agent.
    if record is None or record.status is not JobStatus.RUNNING or record.agent_id != agent.agent_id:
        return HeldJob(job_id, begun=False)
    return HeldJob(job_id, begun=True, attempts=record.attempts, started_at=record.started_at)


def present_jobs(control: Control, agent: Agent) -> list[Job] | None:
    """Return the jobs that an agent holds now as they stand, those it works on first; None when nobody knows.

    Those that another client sent and that are not begun are known by nothing but their messages, and left out.
    """
    holds = jobs_of(control, agent)
    if not holds:
        return None if holds is None else []
    ids = [one.id for one in holds]
    with control.database.transaction() as session:
        rows = session.scalars(select(Job).where(Job.id.in_(ids))).all()
    try:
        found = jobs.with_reports(control, rows, [one.id for one in holds if one.begun])
    except NotFound:  # it ended in this moment, and what told of it is gone
        found = {row.id: row for row in rows}
    return [found[job_id] for job_id in ids if job_id in found]


def drain(control: Control, agent_id: str, actor: str) -> Agent:
    """Have an agent finish what it does and leave; its group gets a new one, as its desired count stays.

    That one is started at once while max_workers leaves room, else when this one is gone. Raises NotFound, and
    Conflict for an agent that is gone.
    """
    return _send_away(control, agent_id, actor, at_once=True)


def replace(control: Control, agent_id: str, actor: str) -> Agent:
    """Have a new agent started in place of one, which leaves when that has proved itself.

    The pace is that of the blueprint's rollouts, also while one is paused or has failed: without room for one more, the
    old one leaves first. Raises NotFound, and Conflict for an agent that is gone, or leaves already.
    """
    return _send_away(control, agent_id, actor, at_once=False)


def _send_away(control: Control, agent_id: str, actor: str, *, at_once: bool) -> Agent:
    followup, woken = Followup(), False
    with control.database.transaction() as session:
        agent = get(session, agent_id)
        cluster = lifecycle.locked(session, agent.cluster_id)
        leaving.lock_agents(session, [agent_id])
        session.refresh(agent)
        _check(agent, cluster, at_once=at_once)
        agent.retiring = True
        session.flush()
        if at_once and agent.status is not AgentStatus.DRAINING:
            woken = leaving.drain(session, [agent], [agent_id])
        told = "it is to finish what it does and leave" if at_once else "a new one is to take its place"
        kind = "agent.drained" if at_once else "agent.replaced"
        history.record(session, kind, told, cluster_id=cluster.id, actor=actor, agent_id=agent_id,
                       data={"group": agent.group_name})  # fmt: skip
        audit.note(session, cluster_id=cluster.id)
        followup = reconcile(session, cluster.id)
        session.refresh(agent)
    followup.wake = followup.wake or woken
    act(control, followup)
    return agent


def _check(agent: Agent, cluster: Cluster, *, at_once: bool) -> None:
    if agent.status not in LIVE_AGENT_STATUSES:
        raise Conflict(f"the agent is {agent.status}; only one that lives can leave", status=str(agent.status))
    if agent.status is AgentStatus.DRAINING and not at_once:
        raise Conflict("the agent leaves already; a new one comes by itself", status=str(agent.status))
    if cluster.intent is not Intent.RUNNING:
        raise Conflict(f"the cluster is to be {cluster.intent}, so all its agents leave and none is replaced")
