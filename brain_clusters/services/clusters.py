"""Reading clusters and what belongs to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, names
from brain_clusters.db.models import Agent, Cluster, Event, Metrics
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, ClusterStatus, ClusterType
from brain_clusters.errors import NotFound, TemporaryError
from brain_clusters.services import blueprints, served
from brain_clusters.services.control import Control
from brain_clusters.services.paging import Page, page


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFilter:
    """What a list of clusters is narrowed to. name matches a part, whatever its case. None is no filter."""

    status: ClusterStatus | None = None
    type: ClusterType | None = None
    tag: str | None = None
    name: str | None = None


def get(session: Session, cluster_id: str) -> Cluster:
    """Return a cluster; raise NotFound."""
    found = session.get(Cluster, cluster_id)
    if found is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    return found


def listing(session: Session, wanted: ClusterFilter, *, limit: int, cursor: str | None) -> Page[Cluster]:
    """Return a page of clusters, newest first."""
    query = select(Cluster)
    if wanted.status is not None:
        query = query.where(Cluster.status == wanted.status)
    if wanted.type is not None:
        query = query.where(Cluster.type == wanted.type)
    if wanted.tag is not None:
        query = query.where(Cluster.tags.contains([wanted.tag]))
    if wanted.name is not None:
        query = query.where(func.lower(Cluster.name).contains(wanted.name.lower(), autoescape=True))
    order = (Cluster.created_at, Cluster.id)
    return page(session, query, order, lambda row: (row.created_at, row.id), limit=limit, cursor=cursor)


def agents(session: Session, cluster_id: str, *, ended: bool = False) -> Sequence[Agent]:
    """Return a cluster's live agents in the order they were started; with ``ended`` those that are gone, too."""
    get(session, cluster_id)
    query = select(Agent).where(Agent.cluster_id == cluster_id)
    if not ended:
        query = query.where(Agent.status.in_(LIVE_AGENT_STATUSES))
    return session.scalars(query.order_by(Agent.spawned_at, Agent.agent_id).limit(10_000)).all()


def names_of(session: Session, cluster_ids: Collection[str]) -> dict[str, str]:
    """Return the names of clusters by id."""
    rows = session.execute(select(Cluster.id, Cluster.name).where(Cluster.id.in_(cluster_ids))).all()
    return {row[0]: row[1] for row in rows}


def agents_page(session: Session, cluster_id: str, *, ended: bool, limit: int, cursor: str | None) -> Page[Agent]:
    """Return a page of what ``agents`` returns."""
    get(session, cluster_id)
    query = select(Agent).where(Agent.cluster_id == cluster_id)
    if not ended:
        query = query.where(Agent.status.in_(LIVE_AGENT_STATUSES))

    def place(row: Agent) -> tuple[Any, ...]:
        return row.spawned_at, row.agent_id

    order = (Agent.spawned_at, Agent.agent_id)
    return page(session, query, order, place, limit=limit, cursor=cursor, descending=False)


def events(session: Session, cluster_id: str, *, limit: int, cursor: str | None) -> Page[Event]:
    """Return a page of a cluster's history, newest first."""
    get(session, cluster_id)
    query = select(Event).where(Event.cluster_id == cluster_id)
    return page(session, query, (Event.id,), lambda row: (row.id,), limit=limit, cursor=cursor)


def metrics(session: Session, cluster_id: str, *, limit: int, cursor: str | None) -> Page[Metrics]:
    """Return a page of a cluster's samples, newest first."""
    get(session, cluster_id)
    query = select(Metrics).where(Metrics.cluster_id == cluster_id)
    return page(session, query, (Metrics.id,), lambda row: (row.id,), limit=limit, cursor=cursor)


def hierarchy(session: Session, cluster_id: str) -> dict[str, Any]:
    """Return the tree of agent groups below the supervisor: name, role, counts, live agents, and who reports to it."""
    cluster = get(session, cluster_id)
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    members: dict[str, list[Agent]] = {}
    for agent in agents(session, cluster_id):
        members.setdefault(agent.group_name, []).append(agent)
    return _branch(blueprint, blueprint.supervisor.name, cluster, members)


def _branch(
    blueprint: Blueprint, name: str, cluster: Cluster, members: Mapping[str, Sequence[Agent]]
) -> dict[str, Any]:
    group = blueprint.group(name)
    assert group is not None  # noqa: S101 - names come from the blueprint itself
    top = blueprint.supervisor.name
    below = [one.name for one in blueprint.groups if one.name != top and (one.reports_to or top) == name]
    return {
        "group": name,
        "role": str(group.role),
        "target": cluster.group_targets.get(name, 0),
        "queue": served.queues_of(cluster.id, group)[0],
        "queues": list(served.queues_of(cluster.id, group)),
        "capabilities": list(group.capabilities),
        "agents": [
            {"agent_id": agent.agent_id, "status": str(agent.status), "supervisor_id": agent.supervisor_id}
            for agent in members.get(name, ())
        ],
        "reports": [_branch(blueprint, child, cluster, members) for child in below],
    }


def backlog_now(control: Control, cluster: Cluster) -> dict[str, int] | None:
    """Return how many jobs wait and run in a cluster this moment; None when a broker is away and nobody knows."""
    by_group = _backlogs(control, cluster)
    if by_group is None or None in by_group.values():
        return None
    found = [one for one in by_group.values() if one is not None]
    return {name: sum(one[name] for one in found) for name in ("waiting", "running")}


def group_backlog(control: Control, cluster: Cluster, group: str) -> dict[str, int]:
    """Return how many jobs of one group wait and run this moment.

    Raises NotFound for a group that there is not, TemporaryError when its broker is away.
    """
    by_group = _backlogs(control, cluster)
    if by_group is not None and group not in by_group:
        raise NotFound(f"cluster {cluster.id!r} has no group {group!r}; there are {', '.join(by_group)}")
    found = None if by_group is None else by_group[group]
    if found is None:
        raise TemporaryError("the broker does not answer, so nobody knows what waits; try again in a moment")
    return found


def _backlogs(control: Control, cluster: Cluster) -> dict[str, dict[str, int] | None] | None:
    """Return what waits and runs by group; None for one whose broker is away, and as a whole when ours is."""
    with control.database.transaction() as session:
        blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
        members = agents(session, cluster.id)
    queues = {group.name: names.group_queue(cluster.id, group.slug) for group in blueprint.groups}
    try:
        reading = backlog.read(control.broker.redis, list(queues.values()), [agent.agent_id for agent in members])
        served.add_foreign(
            control, [(cluster.id, blueprint, [(agent.agent_id, agent.group_name) for agent in members])], reading, {}
        )
    except TemporaryError:
        return None
    running = {name: sum(reading.held[one.agent_id] for one in members if one.group_name == name) for name in queues}
    depths = {name: reading.queues.get(queue) for name, queue in queues.items()}
    return {
        name: None if depth is None else {"waiting": depth.length, "running": running[name]}
        for name, depth in depths.items()
    }


def beats(control: Control, agent_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the fresh beats of agents by id; None when Redis is away and nothing is known."""
    try:
        return backlog.read(control.broker.redis, [], agent_ids).beats
    except TemporaryError:
        return None
