"""The host's desk: what a host reads and tells, on PostgreSQL and Redis."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.listen import HOSTS_CHANNEL, Listener
from brain_clusters.db.models import Agent, Cluster, Host
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.domain.budgets import effective
from brain_clusters.domain.engines import PROCESS
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, Intent
from brain_clusters.genesis.desk import Ended, Wanted
from brain_clusters.services import blueprints, history, observed, served, standby
from brain_clusters.services.control import Control
from brain_clusters.services.leaving import lock_agents
from brain_clusters.services.reconcile import Followup, act, reconcile, spec_of

# The host's key in Redis outlives a few missed beats; its agents leave 60 s after it is gone.
_HOST_KEY_SECONDS = 30
_LOST_SECONDS = 90.0


class HostDesk:
    """Implements ``genesis.desk.Desk`` for one host, of one driver."""

    def __init__(self, control: Control, host_id: str, capacity: int, driver: str = PROCESS) -> None:
        self._control = control
        self._host_id = host_id
        self._capacity = capacity
        self._driver = driver
        self._last_beats: dict[str, Mapping[str, Any]] = {}
        self._listener = Listener(control.database.engine, HOSTS_CHANNEL)

    def fileno(self) -> int:
        """Return the descriptor of the LISTEN connection, or -1."""
        return self._listener.fileno()

    def clear(self) -> None:
        """Read the notifications that came."""
        self._listener.clear()

    def beat(self, warm: Mapping[str, int]) -> None:
        """Say in PostgreSQL and in Redis that this host lives, and what its warm zygotes hold in memory."""
        told = json.dumps({"pid": os.getpid(), "warm": warm})
        with temporary_when_away():
            self._control.broker.redis.set(names.host_key(self._host_id), told, ex=_HOST_KEY_SECONDS)
        row = {"id": self._host_id, "capacity": self._capacity, "pid": os.getpid(), "driver": self._driver}
        with self._control.database.transaction() as session:
            session.execute(
                insert(Host)
                .values(row)
                .on_conflict_do_update(
                    index_elements=[Host.id],
                    set_={**row, "seen_at": func.now()},
                )
            )

    def warm(self) -> Sequence[Loads]:
        """Return what groups that are not gone want to be kept imported."""
        with self._control.database.transaction() as session:
            return list(standby.sharers(session))

    def wanted(self) -> Sequence[Wanted]:
        """Return the live rows of this host, with how long draining ones may take."""
        with self._control.database.transaction() as session:
            rows = session.execute(
                select(
                    Agent,
                    Cluster.blueprint_id,
                    Cluster.budget_per_day,
                    Cluster.intent,
                    func.extract("epoch", func.now() - Agent.draining_at),
                )
                .join(Cluster, Cluster.id == Agent.cluster_id)
                .where(Agent.host_id == self._host_id, Agent.status.in_(LIVE_AGENT_STATUSES))
            ).all()
            return [self._wanted(session, *row) for row in rows]

    def _wanted(
        self, session: Session, agent: Agent, blueprint_id: str, per_day: float | None, intent: Intent,
        draining_seconds: float | None,
    ) -> Wanted:  # fmt: skip
        scaling = blueprints.parsed(session, blueprint_id, agent.blueprint_version).scaling
        kill_after = scaling.drain_timeout_seconds if scaling.on_drain_timeout == "stop" else None
        if intent is Intent.GONE:
            kill_after = self._control.settings.stop_grace_seconds
        return Wanted(
            spec=_spec(session, agent, blueprint_id, per_day),
            draining=agent.status is AgentStatus.DRAINING,
            started=agent.ready_at is not None,
            draining_seconds=float(draining_seconds or 0.0),
            kill_after=kill_after,
        )

    def claim(self, room: int) -> Sequence[AgentSpec]:
        """Take pending agents. Two hosts never take the same: each skips rows that the other has locked."""
        pending = (
            select(Agent.id)
            .where(
                Agent.status == AgentStatus.STARTING,
                Agent.host_id.is_(None),
                Agent.driver == self._driver,
                or_(Agent.not_before.is_(None), Agent.not_before <= func.now()),
            )
            .order_by(Agent.spawned_at)
            .limit(room)
            .with_for_update(skip_locked=True)
            .cte("pending")  # evaluated once; as a subquery a plan may run it again, and take more than the room
        )
        with self._control.database.transaction() as session:
            taken = session.scalars(
                update(Agent)
                .where(Agent.id.in_(select(pending.c.id)))
                .values(host_id=self._host_id, claimed_at=func.now())
                .returning(Agent)
                .execution_options(synchronize_session=False)
            ).all()
            clusters = _of_clusters(session, {agent.cluster_id for agent in taken})
            ordered = sorted(taken, key=lambda agent: agent.spawned_at)
            return [_spec(session, agent, *clusters[agent.cluster_id]) for agent in ordered]

    def beating(self, agent_ids: Sequence[str]) -> Set[str]:
        """Return those whose beats are fresh."""
        return backlog.read(self._control.broker.redis, [], agent_ids).beats.keys()

    def explain(self, reasons: Mapping[str, str | None]) -> None:
        """Write why agents still are starting into their rows."""
        with self._control.database.transaction() as session:
            lock_agents(session, reasons)
            for agent_id, reason in reasons.items():
                live = Agent.agent_id == agent_id, Agent.status.in_(LIVE_AGENT_STATUSES)
                session.execute(update(Agent).where(*live).values(reason=reason))

    def ready(self, handles: Mapping[str, Mapping[str, Any]]) -> None:
        """Mark agents as idle and reconcile their clusters."""
        with self._control.database.transaction() as session:
            touched = set()
            lock_agents(session, handles)
            for agent_id, handle in handles.items():
                # A tick may have seen its first beat before, and made it idle: it still lacks its handle.
                changed = session.execute(
                    update(Agent)
                    .where(Agent.agent_id == agent_id, Agent.status.in_(LIVE_AGENT_STATUSES))
                    .values(
                        status=case((Agent.status == AgentStatus.STARTING, AgentStatus.IDLE), else_=Agent.status),
                        ready_at=func.coalesce(Agent.ready_at, func.now()),
                        last_active=func.coalesce(Agent.last_active, func.now()),
                        handle=dict(handle),
                        reason=None,
                        host_id=self._host_id,
                    )
                    .returning(Agent.cluster_id)
                ).first()
                if changed is not None:
                    touched.add(changed.cluster_id)
        self._reconcile(touched)

    def release(self, agent_id: str) -> None:
        """Return what a dead agent held to its queue."""
        beat = backlog.read(self._control.broker.redis, [], [agent_id]).beats.get(agent_id)
        if beat is not None:
            self._last_beats[agent_id] = beat  # which goes with what it held, and which its row is still to learn
        served.release(self._control, agent_id)

    def ended(self, ended: Sequence[Ended]) -> None:
        """Mark agents as stopped, or as failed when nobody asked them to leave, and reconcile their clusters."""
        touched = set()
        with self._control.database.transaction() as session:
            lock_agents(session, [one.agent_id for one in ended])
            for one in ended:
                cluster_id = self._mark_ended(session, one)
                if cluster_id is not None:
                    touched.add(cluster_id)
        for one in ended:
            self._last_beats.pop(one.agent_id, None)
        self._reconcile(touched)

    def _mark_ended(self, session: Session, one: Ended) -> str | None:
        agent = session.scalars(
            select(Agent).where(Agent.agent_id == one.agent_id, Agent.status.in_(LIVE_AGENT_STATUSES))
        ).first()
        if agent is None:
            return None
        asked = one.asked or agent.status is AgentStatus.DRAINING
        agent.status = AgentStatus.STOPPED if asked else AgentStatus.FAILED
        agent.stopped_at = func.now()
        beat = self._last_beats.get(one.agent_id)
        if beat is not None:
            observed.take_over(agent, beat)
        if not asked:  # else the error of its last task that failed stays
            agent.last_error, agent.health_score = one.error, 0.0
            history.record(
                session, "agent.died", one.error or "ended unasked", cluster_id=agent.cluster_id,
                agent_id=agent.agent_id, data={"group": agent.group_name, "host": self._host_id},
            )  # fmt: skip
        return agent.cluster_id

    def leave(self) -> None:
        """Remove this host; agents that it claimed and that do not run go back to be claimed by another."""
        with self._control.database.transaction() as session:
            session.execute(
                update(Agent)
                .where(Agent.host_id == self._host_id, Agent.status == AgentStatus.STARTING)
                .values(host_id=None, claimed_at=None)
            )
            session.execute(delete(Host).where(Host.id == self._host_id))
        self._listener.close()
        with temporary_when_away():
            self._control.broker.redis.delete(names.host_key(self._host_id))

    def _reconcile(self, cluster_ids: set[str]) -> None:
        for cluster_id in sorted(cluster_ids):
            followup = Followup()
            with self._control.database.transaction() as session:
                followup = reconcile(session, cluster_id)
            act(self._control, followup)


def release_lost(control: Control) -> int:
    """Give up the agents of hosts that are gone, so that others replace them; return how many.

    A host is gone when it has told PostgreSQL nothing for _LOST_SECONDS and its key in Redis has expired. Its agents
    leave by themselves when they miss that key; one that still beats is left alone until it has.
    """
    with control.database.transaction() as session:
        silent = session.scalars(
            select(Host.id).where(Host.seen_at < func.now() - timedelta(seconds=_LOST_SECONDS))
        ).all()
    given_up = 0
    for host_id in silent:
        with temporary_when_away():
            alive = control.broker.redis.exists(names.host_key(host_id))
        given_up += 0 if alive else _give_up_agents(control, host_id)
    return given_up


def _give_up_agents(control: Control, host_id: str) -> int:
    with control.database.transaction() as session:
        rows = session.execute(
            select(Agent.agent_id).where(Agent.host_id == host_id, Agent.status.in_(LIVE_AGENT_STATUSES))
        )
        agent_ids = [agent_id for (agent_id,) in rows]
    beating = backlog.read(control.broker.redis, [], agent_ids).beats
    gone = [agent_id for agent_id in agent_ids if agent_id not in beating]
    for agent_id in gone:
        served.release(control, agent_id)
    desk = HostDesk(control, host_id, 0)
    desk.ended([Ended(agent_id, asked=False, error=f"its host {host_id} is gone") for agent_id in gone])
    if len(gone) == len(agent_ids):
        with control.database.transaction() as session:
            session.execute(delete(Host).where(Host.id == host_id))
    return len(gone)


def _of_clusters(session: Session, cluster_ids: set[str]) -> dict[str, tuple[str, float | None]]:
    """Return each cluster's blueprint, and its own budget of a day."""
    rows = session.execute(
        select(Cluster.id, Cluster.blueprint_id, Cluster.budget_per_day).where(Cluster.id.in_(cluster_ids))
    )
    return {cluster_id: (blueprint_id, per_day) for cluster_id, blueprint_id, per_day in rows}


def _spec(session: Session, agent: Agent, blueprint_id: str, per_day: float | None) -> AgentSpec:
    blueprint = blueprints.parsed(session, blueprint_id, agent.blueprint_version)
    group = blueprint.group(agent.group_name)
    assert group is not None  # noqa: S101 - the row was made from this very version
    spec = spec_of(agent.agent_id, agent.cluster_id, group, blueprint)
    return replace(spec, budget=effective(blueprint.budget, per_day))
