"""What a change comes to for one cluster: the agents that are replaced, started and stopped, and what it costs then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster
from brain_clusters.domain.commands import CreateCluster, RolloutCluster
from brain_clusters.domain.comparing import Agents, HourlyCost, agents_between, hourly_cost
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.rollouts import moved_targets
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import Intent
from brain_clusters.errors import BrainError, Conflict, InvalidInput
from brain_clusters.services import blueprints, desired, rollouts
from brain_clusters.services.rolling import unchanged_groups


@dataclass(slots=True)
class Move:
    """One cluster that changes its version or its size. held: it is left where it is, and reason says why.

    before, after: what its agents cost an hour.
    """

    cluster_id: str
    action: Literal["create", "rollout", "resize", "held", "refused"]
    from_version: str | None
    to_version: str
    agents: Agents = field(default_factory=Agents)
    before: HourlyCost = field(default_factory=HourlyCost)
    after: HourlyCost = field(default_factory=HourlyCost)
    reason: str | None = None
    operation_id: str | None = None

    @property
    def happens(self) -> bool:
        """Whether anything becomes of it."""
        return self.action not in ("held", "refused")

    def as_dict(self) -> dict[str, Any]:
        """Return the move as JSON-ready data."""
        names = ("cluster_id", "action", "from_version", "to_version", "reason", "operation_id")
        told = {name: getattr(self, name) for name in names}
        return told | {"agents": asdict(self.agents), "cost_per_hour": cost_of([self])}


def agents_of(moves: Iterable[Move]) -> dict[str, int]:
    """Return how many agents several moves concern."""
    found = [asdict(move.agents) for move in moves]
    return {name: sum(one[name] for one in found) for name in ("replaced", "started", "stopped")}


def cost_of(moves: Sequence[Move]) -> dict[str, Any]:
    """Return what several moves come to an hour: before and after, null where no price is known."""

    def total(costs: Iterable[HourlyCost]) -> float | None:
        known = list(costs)
        amount = sum(one.amount for one in known)
        return None if not amount and any(one.unpriced for one in known) else float(amount)

    unpriced = sorted({name for move in moves for cost in (move.before, move.after) for name in cost.unpriced})
    before, after = total(move.before for move in moves), total(move.after for move in moves)
    return {"before": before, "after": after, "unpriced": unpriced}


def of_blueprint(session: Session, blueprint: Blueprint, pinned: Set[str]) -> list[Move]:
    """Return what becomes of the clusters of a blueprint when a version of it is applied, those left aside too.

    pinned: clusters that something else decides about. One that went back from this version is held: it may have failed
    there, and applying the same again would try it for ever.
    """
    rows = session.scalars(
        select(Cluster)
        .where(
            Cluster.blueprint_id == blueprint.id,
            Cluster.blueprint_version != blueprint.version,
            Cluster.intent != Intent.GONE,
        )
        .order_by(Cluster.id)
    ).all()
    rows = [row for row in rows if row.id not in pinned]
    went_back = rollouts.went_back_from(session, [row.id for row in rows], blueprint.version)
    found, unchanged = [], dict[str, set[str]]()
    for row in rows:
        if row.blueprint_version not in unchanged:
            before = blueprints.parsed(session, row.blueprint_id, row.blueprint_version)
            unchanged[row.blueprint_version] = unchanged_groups(before, blueprint)
        move = of_rollout(session, row, blueprint, {}, unchanged[row.blueprint_version])
        if row.id in went_back:
            told = f"it went back from version {blueprint.version!r}; roll it out by name to try it again"
            move.action, move.reason = "held", told
        found.append(move)
    return found


def of_rollout(
    session: Session, row: Cluster, after: Blueprint, bounds: Mapping[str, Any], unchanged: Set[str] | None = None
) -> Move:
    """Return what becomes of a cluster with another version; refused where that cannot be. bounds: those it gets.

    unchanged: the groups whose agents stay, where that is known already.
    """
    before = blueprints.parsed(session, row.blueprint_id, row.blueprint_version)
    move = Move(row.id, "rollout", before.version, after.version)
    command = RolloutCluster(
        cluster_id=row.id, min_workers=bounds.get("min_workers"), max_workers=bounds.get("max_workers")
    )
    try:
        low, high = rollouts.moved_bounds(row, before, after, command)
        if stranded := rollouts.unfinished(session, row.id, before, after, {}):
            raise Conflict(rollouts.left_behind(stranded, after.version))
    except BrainError as exc:
        faults = exc.faults if isinstance(exc, InvalidInput) else ()
        move.action, move.reason = "refused", "; ".join([str(exc), *(fault.message for fault in faults)])
        return move
    counts = moved_targets(row.group_targets, after.groups, low, high)
    same = unchanged_groups(before, after) if unchanged is None else unchanged
    return _weighed(move, row, (before, after), counts, same)


def of_bounds(session: Session, row: Cluster, changed: Mapping[str, Any]) -> Move:
    """Return what becomes of a cluster with other bounds. Raises InvalidInput where they do not fit together."""
    blueprint = blueprints.parsed(session, row.blueprint_id, row.blueprint_version)
    low, high = changed.get("min_workers", row.min_workers), changed.get("max_workers", row.max_workers)
    target = max(low, min(row.target_workers, high))
    if faults := desired.bound_faults(low, high, target, blueprint.groups):
        raise InvalidInput("the numbers of workers do not fit together", faults)
    counts = row.group_targets if target == row.target_workers else distribute(target, blueprint.groups)
    move = Move(row.id, "resize", blueprint.version, blueprint.version)
    return _weighed(move, row, (blueprint, blueprint), counts, {group.name for group in blueprint.groups})


def of_new(command: CreateCluster, blueprint: Blueprint) -> Move:
    """Return what becomes of a cluster that is made. Raises InvalidInput where its numbers do not fit together."""
    _, _, target = desired.bounds(command, blueprint)
    counts = distribute(target, blueprint.groups)
    started = Agents(started=sum(counts.values()))
    return Move(str(command.id), "create", None, blueprint.version, started, after=hourly_cost(blueprint, counts))


def _weighed(
    move: Move, row: Cluster, versions: tuple[Blueprint, Blueprint], counts: Mapping[str, int], unchanged: Set[str]
) -> Move:
    """Add agents and costs to a move; a sleeping cluster has none of either."""
    if row.intent is Intent.RUNNING:
        before, after = versions
        move.agents = agents_between(row.group_targets, counts, unchanged)
        move.before, move.after = hourly_cost(before, row.group_targets), hourly_cost(after, counts)
    return move
