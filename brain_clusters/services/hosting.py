"""The host's desk: what a host reads and tells, on PostgreSQL and Redis."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from brain_clusters import tracing
from brain_clusters.broker import backlog, names, questions
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.broker.questions import Answer
from brain_clusters.db.listen import HOSTS_CHANNEL, Listener
from brain_clusters.db.models import Agent, Cluster, Host
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.domain.budgets import effective
from brain_clusters.domain.engines import PROCESS, Resources
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, Intent
from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.desk import Asked, Ended, Wanted
from brain_clusters.processes import LifeLock
from brain_clusters.services import blueprints, leaving, placement, served, standby
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key
from brain_clusters.services.leases import Lease
from brain_clusters.services.leaving import Ending
from brain_clusters.services.reconcile import reconcile_each
from brain_clusters.services.specs import spec_of

log = logging.getLogger(__name__)

# The host's key in Redis outlives a few missed beats; its agents leave 60 s after it is gone.
_HOST_KEY_SECONDS = 30
# Of one look: reading a log takes an engine's answer, and agents are to be started meanwhile.
_MOST_ASKED = 5


_STARTED = (
    Agent.cluster_id, Agent.group_name, Agent.ready_at - Agent.claimed_at, Agent.spawned_at, Agent.ready_at,
    Agent.trace,
)  # fmt: skip


class HostDesk:
    """Implements ``genesis.desk.Desk`` for one host, of one driver.

    Whatever asks PostgreSQL raises LeaseLost once another process is the host, or its agents were given up. has: the
    resources of the host, unlimited without it. lock: see ``leases.Lease``.
    """

    def __init__(
        self, control: Control, host_id: str, capacity: int, driver: str = PROCESS, *,
        has: Resources | None = None, lock: LifeLock | None = None,
    ) -> None:  # fmt: skip
        self._control = control
        self._host_id = host_id
        self._driver = driver
        seconds = control.settings.host_lease_seconds
        self._lease = Lease(host_id, driver, capacity, has or Resources(), seconds=seconds, lock=lock)
        self._seconds = seconds
        # Whether Redis did not answer the last time, whether others could run its agents, and when either server was
        # reached last: monotonic.
        self._mute, self._replaceable, self._reached_at = False, False, time.monotonic()
        self._last_beats: dict[str, Mapping[str, Any]] = {}
        self._listener = Listener(control.database.engine, HOSTS_CHANNEL)

    def take(self) -> bool:
        """Become this host; return False while another process is. Raises TemporaryError."""
        with self._control.database.transaction() as session:
            return self._lease.take(session)

    @property
    def is_local(self) -> bool:
        """Whether no other process of this machine is this host."""
        return self._lease.is_local

    @contextmanager
    def _holding(self) -> Iterator[Session]:
        """Yield a transaction in which this process is the host. Raises LeaseLost, TemporaryError."""
        with self._control.database.transaction() as session:
            self._lease.check(session)
            yield session

    def fileno(self) -> int:
        """Return the descriptor of the LISTEN connection, or -1."""
        return self._listener.fileno()

    def clear(self) -> None:
        """Read the notifications that came."""
        self._listener.clear()

    def beat(self, warm: Mapping[str, int]) -> None:
        """Say in PostgreSQL and in Redis that this host lives, and what its warm zygotes hold in memory."""
        told = json.dumps({"pid": os.getpid(), "warm": warm})
        self._mute = True
        # Before PostgreSQL: agents go on while that is away. And a host that cannot reach Redis is none for long.
        with temporary_when_away():
            self._control.broker.redis.set(names.host_key(self._host_id), told, ex=_HOST_KEY_SECONDS)
        self._mute, self._reached_at = False, time.monotonic()
        with self._control.database.transaction() as session:
            self._lease.renew(session)
            self._replaceable = placement.others_run(session, self._host_id, self._driver, self._seconds)
        self._reached_at = time.monotonic()

    def warm(self) -> Sequence[Loads]:
        """Return what groups that are not gone want to be kept imported."""
        with self._control.database.transaction() as session:
            return list(standby.sharers(session))

    def wanted(self) -> Sequence[Wanted]:
        """Return the live rows of this host, with how long draining ones may take.

        None while it is cut off, with the agents of this machine, for so long that others do their work by now.
        """
        try:
            return self._live()
        except TemporaryError:
            cut_off = time.monotonic() - self._reached_at > self._seconds
            if cut_off and self._replaceable and self._driver == PROCESS:
                log.warning("the host is cut off; its agents are given up", extra={"host_id": self._host_id})
                return ()
            raise

    def _live(self) -> Sequence[Wanted]:
        with self._holding() as session:
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
        """Take pending agents that fit here, and leave to the other hosts of this driver what is theirs.

        None while Redis does not answer: they could do nothing.
        """
        if self._mute:
            return ()
        with self._holding() as session:
            taken = placement.claim(session, self._host_id, self._driver, room)
            clusters = _of_clusters(session, {agent.cluster_id for agent in taken})
            return [_spec(session, agent, *clusters[agent.cluster_id]) for agent in taken]

    def beating(self, agent_ids: Sequence[str]) -> Set[str]:
        """Return those whose beats are fresh."""
        return backlog.read(self._control.broker.redis, [], agent_ids).beats.keys()

    def explain(self, reasons: Mapping[str, str | None]) -> None:
        """Write why agents still are starting into their rows."""
        with self._holding() as session:
            leaving.lock_agents(session, reasons)
            for agent_id, reason in reasons.items():
                live = Agent.agent_id == agent_id, Agent.status.in_(LIVE_AGENT_STATUSES)
                session.execute(update(Agent).where(*live).values(reason=reason))

    def ready(self, handles: Mapping[str, Mapping[str, Any]]) -> None:
        """Mark agents as idle and reconcile their clusters."""
        with self._holding() as session:
            touched, counts, spans = set(), Counts(), []
            leaving.lock_agents(session, handles)
            # One that was adopted is told ready a second time, and its start is not counted again.
            without = select(Agent.agent_id).where(Agent.agent_id.in_(list(handles)), Agent.handle.is_(None))
            started = set(session.scalars(without))
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
                    .returning(*_STARTED)
                ).first()
                if changed is not None:
                    touched.add(changed.cluster_id)
                    if agent_id in started:
                        _tally_start(counts, *changed[:3])
                        spans.append((agent_id, changed))
            counts.write(session)
        for agent_id, row in spans:
            told = {"agent_id": agent_id, "cluster_id": row.cluster_id, "group": row.group_name}
            tracing.record("agent.start", row.spawned_at, row.ready_at, row.trace, **told)
        reconcile_each(self._control, touched)

    def release(self, agent_id: str) -> None:
        """Return what a dead agent held to its queue."""
        beat = backlog.read(self._control.broker.redis, [], [agent_id]).beats.get(agent_id)
        if beat is not None:
            self._last_beats[agent_id] = beat  # which goes with what it held, and which its row is still to learn
        served.release(self._control, agent_id)

    def ended(self, ended: Sequence[Ended]) -> None:
        """Mark agents as stopped, or as failed when nobody asked them to leave, and reconcile their clusters."""
        endings = [
            Ending(one.agent_id, self._host_id, one.error, one.asked, beat=self._last_beats.get(one.agent_id))
            for one in ended
        ]
        with self._holding() as session:
            touched = leaving.end_agents(session, endings)
        for one in ended:
            self._last_beats.pop(one.agent_id, None)
        reconcile_each(self._control, touched)

    def asked(self) -> Sequence[Asked]:
        """Return the logs that somebody wants to read; none while Redis does not answer."""
        if self._mute:
            return ()
        found = questions.take(self._control.broker.redis, self._host_id, _MOST_ASKED)
        return [Asked(one.id, one.agent_id, one.lines) for one in found]

    def tell_log(self, asked: Asked, text: str | None, why: str | None = None) -> None:
        """Answer who asked for a log."""
        questions.answer(self._control.broker.redis, asked.id, Answer(text, why))

    def leave(self) -> None:
        """Remove this host; agents that it claimed and that do not run go back to be claimed by another."""
        with self._holding() as session:
            session.execute(
                update(Agent)
                .where(Agent.host_id == self._host_id, Agent.status == AgentStatus.STARTING)
                .values(host_id=None, claimed_at=None)
            )
            session.execute(delete(Host).where(Host.id == self._host_id))
        self._listener.close()
        with temporary_when_away():
            self._control.broker.redis.delete(names.host_key(self._host_id))


def _tally_start(counts: Counts, cluster_id: str, group: str, took: Any) -> None:
    """Count how long a start took, from its claim."""
    if took is not None:
        counts.observe(Key(cluster_id, group, "brain_agent_start_seconds"), took.total_seconds())


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
