"""Why a cluster has the size it has: what would happen now, and what another blueprint would have decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.db.models import Agent, ScalingDecision
from brain_clusters.domain.choosing import Choice, choose
from brain_clusters.domain.planning import FAILURE_WINDOW_SECONDS
from brain_clusters.domain.scaling import held_as_json
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import AgentStatus, Intent
from brain_clusters.errors import Conflict, NotFound, TemporaryError
from brain_clusters.services import blueprints, clusters, ledger, memory, observation, sensing
from brain_clusters.services.control import Control
from brain_clusters.services.memory import ClusterMemory, Memory
from brain_clusters.services.observation import SeenCluster


def explain(control: Control, cluster_id: str) -> dict[str, Any]:
    """Return what the next tick would do with a cluster as it stands, and which gate holds what.

    Raises NotFound, and Conflict for a cluster that is gone. With Redis away the signals are null and say so.
    """
    with control.database.transaction() as session:
        row = clusters.get(session, cluster_id)
        found = observation.load(session, cluster_id).get(cluster_id)
    if found is None or found.intent is Intent.GONE:
        raise Conflict(f"nothing is decided about a cluster that is {row.status}", status=str(row.status))
    try:
        remembered = memory.load(control.broker)
        last_look = remembered.seen_at
        # The whole memory is the tick's to keep: this look learns on a copy of one cluster's part, and forgets it.
        mine = Memory(remembered.at, {cluster_id: remembered.clusters.get(cluster_id, ClusterMemory())})
        now = sensing.read(control, {cluster_id: found}, mine, rest=False).now
        known = True
    except TemporaryError:
        known, last_look, now, mine = False, None, found.at, Memory()
        found.signals = {group.name: GroupSignals(beats_fresh=False) for group in found.blueprint.groups}
    settings = control.settings
    situation = found.situation(settings.start_timeout_seconds, settings.tick_interval_seconds, last_look)
    choice = choose(situation, found.signals, mine.of(cluster_id).state, now)
    with control.database.transaction() as session:
        died = _died(session, cluster_id)
    return {**_explained(found, choice, known=known), "died": died}


def _died(session: Session, cluster_id: str) -> dict[str, dict[str, Any]]:
    """Return by group how many agents died unasked in the last minute, and what the last of them said."""
    since = func.now() - timedelta(seconds=FAILURE_WINDOW_SECONDS)
    rows = session.execute(
        select(Agent.group_name, Agent.last_error)
        .where(Agent.cluster_id == cluster_id, Agent.status == AgentStatus.FAILED, Agent.stopped_at > since)
        .order_by(Agent.stopped_at)
    ).all()
    found: dict[str, dict[str, Any]] = {}
    for group, error in rows:
        found[group] = {"count": found.get(group, {"count": 0})["count"] + 1, "last_error": error}
    return found


def _explained(cluster: SeenCluster, choice: Choice, *, known: bool) -> dict[str, Any]:
    policy = cluster.blueprint.scaling
    return {
        "cluster_id": cluster.id,
        "status": str(cluster.status),
        "action": choice.action,
        "reason": choice.reason,
        "held": held_as_json(choice.held),
        "before": dict(cluster.group_targets),
        "after": choice.after(cluster.group_targets),
        "signals_known": known,
        "signals": {name: _shown(one) for name, one in cluster.signals.items()},
        "wake_in": None if choice.wake_in is None else max(0.0, choice.wake_in),
        "blueprint": {"id": cluster.blueprint.id, "version": cluster.blueprint.version},
        "policy": {
            "policy": policy.policy,
            "metric": policy.metric,
            "paused": policy.paused,
            "dry_run": policy.dry_run,
        },
        "paused": cluster.paused,
    }


def _shown(signals: GroupSignals) -> dict[str, Any]:
    backlog, load = signals.backlog, signals.load_percent
    return {**asdict(signals), "backlog": backlog, "load_percent": None if load is None else round(load, 1)}


# --- replay -----------------------------------------------------------------------------------------------------


def replay(control: Control, cluster_id: str, text: str, *, limit: int) -> dict[str, Any]:
    """Make a cluster's newest ``limit`` stored decisions again by another blueprint; return where they differ.

    Each decision is made from its own stored inputs, so the replay says what that blueprint would have decided in
    those moments, not what would have come of it. text: the blueprint's YAML. Raises NotFound, and InvalidInput with
    every fault of the text.
    """
    blueprint = parse_blueprint(text, source="blueprint")
    with control.database.transaction() as session:
        clusters.get(session, cluster_id)
        weighed = ScalingDecision.inputs.has_key("now")
        query = select(ScalingDecision).where(ScalingDecision.cluster_id == cluster_id, weighed)
        rows = session.scalars(query.order_by(ScalingDecision.id.desc()).limit(limit)).all()
        compared = [_compare(session, row, blueprint) for row in reversed(rows)]
    differing = [one for one in compared if one["differs"]]
    return {
        "cluster_id": cluster_id,
        "blueprint": {"id": blueprint.id, "version": blueprint.version},
        "decisions": len(compared),
        "differing": len(differing),
        # Their jobs are in no group of the other blueprint, and so count for nothing in it.
        "unknown_groups": sorted({name for row in rows for name in row.before if blueprint.group(name) is None}),
        "changes": differing,
    }


def _compare(session: Session, row: ScalingDecision, blueprint: Blueprint) -> dict[str, Any]:
    choice = ledger.choose_again(_moved(session, row.inputs, blueprint), blueprint)
    after = choice.after(row.before)
    recorded = {"action": row.action, "after": row.after, "reason": row.reason}
    replayed = {"action": choice.action, "after": after, "reason": choice.reason}
    return {
        "id": row.id,
        "at": row.at,
        "differs": _outcome(row.action, row.before, row.after) != _outcome(choice.action, row.before, after),
        "recorded": recorded,
        "replayed": replayed,
    }


def _moved(session: Session, found: Mapping[str, Any], blueprint: Blueprint) -> Mapping[str, Any]:
    """Give stored inputs what another blueprint says itself: its schedules, and its bounds unless the cluster's were
    its own and not its blueprint's.
    """
    view = found["view"]
    try:
        then = blueprints.parsed(session, *found["blueprint"])
    except NotFound:
        return found
    moved: dict[str, Any] = {}
    if blueprint.scaling.schedule != then.scaling.schedule:
        moved["floor"], moved["next_floor"] = observation.floors(blueprint, datetime.fromtimestamp(found["now"], UTC))
    if (view["min_workers"], view["max_workers"]) == (then.min_workers, then.max_workers):
        moved |= {"min_workers": blueprint.min_workers, "max_workers": blueprint.max_workers}
    return {**found, "view": {**view, **moved}}


def _outcome(action: str, before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, Mapping[str, int]]:
    """Return what a decision comes to: a hold leaves what there was, whatever it held back."""
    return ("stay", before) if action in ("hold", "none") else (action, after)
