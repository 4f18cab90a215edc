"""``standby: warm``: what hosts keep imported for groups that sleep, and the memory that this takes.

Each host keeps one zygote for each handler or application, however many groups share it, from the creation of the first
cluster that asks for it until the last one is destroyed.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.models import Cluster, Host
from brain_clusters.db.scope import widened
from brain_clusters.domain.agents import Loads
from brain_clusters.domain.specs import AgentGroup
from brain_clusters.domain.states import Intent
from brain_clusters.errors import TemporaryError
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control

Key = tuple[str, str]  # cluster id, group name


def sharers(session: Session) -> dict[Loads, list[Key]]:
    """Return what is to be kept imported, with the groups that want it, those of the newest activity first."""
    rows = session.execute(
        select(Cluster.id, Cluster.blueprint_id, Cluster.blueprint_version)
        .where(Cluster.intent != Intent.GONE)
        .order_by(func.coalesce(Cluster.last_active, Cluster.created_at).desc(), Cluster.id)
    )
    found: dict[Loads, list[Key]] = {}
    for cluster_id, blueprint_id, version in rows:
        for group in blueprints.parsed(session, blueprint_id, version).groups:
            if _is_warm(group):
                found.setdefault(Loads.of(group), []).append((cluster_id, group.name))
    return found


def memory(control: Control) -> dict[Key, int]:
    """Return the bytes that are kept for each group on all hosts; groups that share a zygote share its bytes evenly.

    Raises TemporaryError when Redis is away: nobody knows then.
    """
    return {key: kept[1] for key, kept in _kept(control).items()}


def of(control: Control, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return for each group of a cluster how it stands by: mode, zygotes and memory_bytes, null when nobody knows."""
    with control.database.transaction() as session:
        groups = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version).groups
    shown: dict[str, dict[str, Any]] = {
        group.name: {"mode": group.standby, "zygotes": 0, "memory_bytes": 0} for group in groups
    }
    warm = [group.name for group in groups if _is_warm(group)]
    if not warm:
        return shown
    try:
        kept = _kept(control)
    except TemporaryError:
        kept = dict.fromkeys(((cluster.id, name) for name in warm), (None, None))  # type: ignore[arg-type]
    for name in warm:
        zygotes, size = kept.get((cluster.id, name), (0, 0))
        shown[name] |= {"zygotes": zygotes, "memory_bytes": size}
    return shown


def _is_warm(group: AgentGroup) -> bool:
    return group.standby == "warm" and Loads.of(group).key != ""


def _kept(control: Control) -> dict[Key, tuple[int, int]]:
    """Return for each warm group how many hosts keep its zygote, and its share of their bytes."""
    # All of them: each has its part of what they share.
    with widened(), control.database.transaction() as session:
        shared, hosts = sharers(session), list(session.scalars(select(Host.id)))
    with temporary_when_away():
        told: Any = control.broker.redis.mget([names.host_key(host) for host in hosts]) if hosts else []
    sizes: dict[str, list[int]] = {}
    for text in told:
        for key, size in _warm_of(text).items():
            sizes.setdefault(key, []).append(size)
    return {
        group: (len(sizes.get(loads.key, ())), sum(sizes.get(loads.key, ())) // len(groups))
        for loads, groups in shared.items()
        for group in groups
    }


def _warm_of(text: Any) -> dict[str, int]:
    """Return what a host told of its zygotes; nothing where it is not there, or was written by users' code."""
    try:
        found = json.loads(text)["warm"] if text else {}
        return {str(key): int(size) for key, size in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
