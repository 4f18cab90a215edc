"""Hosts and the agents that wait for one: who takes which, why some wait, and what every host has.

``domain.placement`` decides. Hosts claim by themselves, each for itself and from the same rows, so they agree without
talking; where they do not, none takes what another has locked.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Host
from brain_clusters.domain import placement
from brain_clusters.domain.placement import Need, Room
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus
from brain_clusters.services.leases import alive

# Nothing is left to a host that missed three beats.
_FRESH_SECONDS = 6.0
# The most agents that one look takes, and of those that wait for long.
_MOST_AT_ONCE = 500
_MOST_PASSED = 20
# What a host is about to take waits for no reason.
_TAKEN_SOON_SECONDS = placement.YIELD_SECONDS + 1.0


def _waits() -> ColumnElement[bool]:
    due = or_(Agent.not_before.is_(None), Agent.not_before <= func.now())
    return and_(Agent.status == AgentStatus.STARTING, Agent.host_id.is_(None), due)


def _waited() -> ColumnElement[Any]:
    return func.now() - func.greatest(Agent.spawned_at, Agent.not_before)


def claim(session: Session, host_id: str, driver: str, most: int) -> list[Agent]:
    """Take up to ``most`` agents for a host, and return them in the order in which they were asked for."""
    pending = and_(_waits(), Agent.driver == driver)
    long = and_(_waited() > timedelta(seconds=placement.LONG_SECONDS), or_(Agent.cpu > 0, Agent.memory_bytes > 0))
    waiting, for_long = session.execute(select(func.count(), func.count().filter(long)).where(pending)).one()
    if most <= 0 or not waiting:
        return []
    rooms = _rooms(session, Host.driver == driver, or_(alive(_FRESH_SECONDS), Host.id == host_id))
    me = next(room for room in rooms if room.host_id == host_id)
    fits = (
        or_(Agent.cpu == 0, Agent.cpu <= me.cpu_left),
        or_(Agent.memory_bytes == 0, Agent.memory_bytes <= me.memory_left),
    )
    needs = _needs(session, _needed().where(pending, *fits), _MOST_AT_ONCE)
    passed = _needs(session, _needed().where(pending, long), _MOST_PASSED) if for_long else []
    return _take(session, host_id, placement.taken_by(host_id, needs, rooms, passed)[:most])


def _needed() -> Select[Any]:
    columns: tuple[Any, ...] = (Agent.id, Agent.cpu, Agent.memory_bytes, func.extract("epoch", _waited()))
    return select(*columns).order_by(Agent.spawned_at)


def _needs(session: Session, query: Select[Any], most: int) -> list[Need]:
    rows = session.execute(query.limit(most))
    return [Need(str(identity), cpu, memory_bytes, float(waited)) for identity, cpu, memory_bytes, waited in rows]


def _take(session: Session, host_id: str, identities: Sequence[str]) -> list[Agent]:
    free = (
        select(Agent.id)
        .where(Agent.id.in_([uuid.UUID(one) for one in identities]), _waits())
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    taken = session.scalars(
        update(Agent)
        .where(Agent.id.in_(select(free.c.id)))
        .values(host_id=host_id, claimed_at=func.now(), reason=None)
        .returning(Agent)
        .execution_options(synchronize_session=False)
    )
    return sorted(taken, key=lambda agent: agent.spawned_at)


def _rooms(session: Session, *wanted: ColumnElement[bool]) -> list[Room]:
    rows = session.execute(_with_use(Host.id, Host.capacity, Host.cpus, Host.memory_bytes).where(*wanted))
    return [
        Room(identity, capacity, cpus, memory_bytes, agents, cpu_used, int(memory_used))
        for identity, capacity, cpus, memory_bytes, agents, cpu_used, memory_used in rows
    ]


def _with_use(*columns: Any) -> Select[Any]:
    """Return a query of hosts that adds how many agents each runs, and what they ask for: cores and bytes."""
    lives = and_(Agent.host_id == Host.id, Agent.status.in_(LIVE_AGENT_STATUSES))
    use = (
        func.count(Agent.id),
        func.coalesce(func.sum(Agent.cpu), 0.0),
        func.coalesce(func.sum(Agent.memory_bytes), 0),
    )
    return select(*columns, *use).outerjoin(Agent, lives).group_by(Host.id)


# --- what waits -------------------------------------------------------------------------------------------------


def explain(session: Session, lease_seconds: float) -> None:
    """Write into the rows of agents that no host takes why that is. Agents that ask for the same wait for the same."""
    late = and_(_waits(), _waited() > timedelta(seconds=_TAKEN_SOON_SECONDS))
    kinds = session.execute(select(Agent.driver, Agent.cpu, Agent.memory_bytes).where(late).distinct()).all()
    if not kinds:
        return
    rooms: dict[str, list[Room]] = {driver: [] for driver, _, _ in kinds}
    for driver, found in rooms.items():
        found.extend(_rooms(session, Host.driver == driver, alive(lease_seconds)))
    for driver, cpu, memory_bytes in kinds:
        reason = placement.why_not(Need("", cpu, memory_bytes), driver, rooms[driver])
        alike = Agent.driver == driver, Agent.cpu == cpu, Agent.memory_bytes == memory_bytes
        untold = (
            select(Agent.id)
            .where(late, *alike, Agent.reason.is_distinct_from(reason))
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        session.execute(
            update(Agent).where(Agent.id.in_(untold)).values(reason=reason).execution_options(synchronize_session=False)
        )


# --- what there is ----------------------------------------------------------------------------------------------


def others_run(session: Session, host_id: str, driver: str, lease_seconds: float) -> bool:
    """Return whether another host of this driver has a lease."""
    others = Host.driver == driver, Host.id != host_id, alive(lease_seconds)
    return session.execute(select(Host.id).where(*others).limit(1)).first() is not None


def hosts(session: Session, lease_seconds: float) -> list[dict[str, Any]]:
    """Return all hosts with what they have and how much of it is in use. lease: "held", "ended" or "given_up"."""
    columns = (
        Host.id, Host.driver, Host.capacity, Host.cpus, Host.memory_bytes, Host.seen_at, Host.holder.is_(None),
        alive(lease_seconds),
    )  # fmt: skip
    rows = session.execute(_with_use(*columns).order_by(Host.driver, Host.id))
    names = ("id", "driver", "capacity", "cpus", "memory_bytes", "seen_at")
    return [
        {
            **dict(zip(names, row, strict=False)),
            "lease": "held" if lasts and not given_up else "given_up" if given_up else "ended",
            "agents": agents,
            "cpus_used": cpu,
            "memory_bytes_used": int(memory_bytes),
        }
        for *row, given_up, lasts, agents, cpu, memory_bytes in rows
    ]
