"""What the lifecycle commands want, written into the cluster's row. Only ``services.lifecycle`` writes by it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, StoredBlueprint
from brain_clusters.domain import budgets
from brain_clusters.domain.budgets import Spent
from brain_clusters.domain.commands import Command, CreateCluster, HibernateCluster, ScaleCluster, UpdateCluster
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.secrecy import ADVICE, secrets_in
from brain_clusters.domain.specs import AgentGroup, Blueprint, Count, slug
from brain_clusters.domain.states import Intent, OperationKind
from brain_clusters.errors import Conflict, Fault, InvalidInput
from brain_clusters.services import blueprints, metering, tenancy


def create(session: Session, command: CreateCluster) -> Cluster:
    """Add the cluster's row; raise InvalidInput or Conflict where it cannot be."""
    _refuse_secrets(command.config)
    stored = blueprints.stored(session, command.blueprint_id, command.version)
    blueprint = blueprints.parsed(session, stored.id, stored.version)
    low, high, target = bounds(command, blueprint)
    if command.parent_cluster_id and session.get(Cluster, command.parent_cluster_id) is None:
        raise InvalidInput(
            "the parent does not exist",
            [Fault("/parent_cluster_id", f"there is no cluster {command.parent_cluster_id!r}")],
        )
    cluster_id = command.id or f"{slug(command.name)[:40] or 'cluster'}-{secrets.token_hex(3)}"
    added = session.execute(
        insert(Cluster)
        .values(
            id=cluster_id,
            name=command.name,
            type=command.type or blueprint.cluster_type,
            blueprint_id=stored.id,
            blueprint_version=stored.version,
            parent_cluster_id=command.parent_cluster_id,
            min_workers=low,
            max_workers=high,
            target_workers=target,
            group_targets=distribute(target, blueprint.groups),
            description=command.description if command.description is not None else blueprint.description,
            tags=tenancy.tags_of_new(command.tags, blueprint.tags),
            config=dict(command.config),
            budget_per_day=command.budget_per_day,
            scaled_at=func.now(),
            last_active=func.now(),
        )
        .on_conflict_do_nothing(index_elements=[Cluster.id])
        .returning(Cluster.id)
    ).first()
    if added is None:
        raise Conflict(f"there is a cluster {cluster_id!r} already; choose another id")
    # Counted by the database: two creations at once count as two.
    stored.instances_created = StoredBlueprint.instances_created + 1
    stored.instances_active = StoredBlueprint.instances_active + 1
    return session.get_one(Cluster, cluster_id)


def bounds(command: CreateCluster, blueprint: Blueprint) -> tuple[int, int, int]:
    """Return min, max and target; raise InvalidInput with all that does not fit together."""
    low = command.min_workers if command.min_workers is not None else blueprint.min_workers
    high = command.max_workers if command.max_workers is not None else max(blueprint.max_workers, low)
    if command.max_workers is not None and command.min_workers is None:
        low = min(low, high)
    target = command.target_workers
    if target is None:
        target = max(low, min(blueprint.default_workers, high))
    faults = bound_faults(low, high, target, blueprint.groups)
    if faults:
        raise InvalidInput("the numbers of workers do not fit together", faults)
    return low, high, target


def bound_faults(low: int, high: int, target: int, groups: tuple[AgentGroup, ...]) -> list[Fault]:
    """Return what does not fit together in a cluster's bounds, its size and its groups."""
    capacity = sum(group.count.maximum for group in groups)
    faults = []
    if low > high:
        faults.append(Fault("/min_workers", f"min_workers {low} is above max_workers {high}"))
    elif not low <= target <= high:
        faults.append(Fault("/target_workers", f"target_workers {target} must be from {low} to {high}"))
    needed = sum(group.count.minimum for group in groups)
    if high < needed:
        faults.append(Fault("/max_workers", f"the blueprint's groups need at least {needed} agents"))
    if max(low, target) > capacity:
        pointer = "/target_workers" if target > capacity else "/min_workers"
        faults.append(Fault(pointer, f"the blueprint's groups hold at most {capacity} agents"))
    return faults


def apply(session: Session, cluster: Cluster, command: Command, backlogs: Mapping[str, int], before: Intent) -> None:
    """Write what ``command`` wants into the cluster's row. before: its intent until then."""
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    if isinstance(command, ScaleCluster):
        _scale(cluster, command, blueprint, backlogs)
    elif isinstance(command, UpdateCluster):
        _update(cluster, command, blueprint)
    elif isinstance(command, HibernateCluster):
        # The autoscaler only sends this after it saw an empty queue: then whatever waits now is new.
        cluster.asleep_backlog = 0 if command.if_generation is not None else sum(backlogs.values())
    elif command.kind is OperationKind.REACTIVATE:
        _reactivate(cluster, blueprint, backlogs, getattr(command, "groups", {}))
    if before is Intent.ASLEEP and cluster.intent is not Intent.ASLEEP:
        metering.slept(session, cluster, blueprint)
    if before is Intent.ASLEEP and cluster.intent is Intent.RUNNING:
        _waive_budget(cluster, blueprint)
        cluster.ready_since_wake = False
        cluster.hibernated_at = None
        cluster.last_active = func.now()


def _waive_budget(cluster: Cluster, blueprint: Blueprint) -> None:
    """A cluster that sleeps for its budget and is woken all the same may spend for the rest of the day.

    Neither the autoscaler nor a job wakes such a cluster, so whoever does so knows that it is a person's decision.
    """
    if over_budget(cluster, blueprint):
        cluster.budget_waived_on, cluster.over_budget_on = datetime.now(UTC).date(), None


def over_budget(cluster: Cluster, blueprint: Blueprint) -> str | None:
    """Return why a cluster has to sleep for what it spent, or None."""
    spent = Spent(cluster.over_budget_on, cluster.over_budget_limit, cluster.budget_waived_on)
    budget = budgets.effective(blueprint.budget, cluster.budget_per_day)
    return spent.sleeps_for(budget, datetime.now(UTC).date())


def _scale(cluster: Cluster, command: ScaleCluster, blueprint: Blueprint, backlogs: Mapping[str, int]) -> None:
    if command.target_workers is None and not command.groups:
        raise InvalidInput("nothing to scale", [Fault("", "give target_workers, or groups, or both")])
    pinned = _pinned(command.groups, blueprint)
    if command.target_workers is None:
        targets = {**{g.name: 0 for g in blueprint.groups}, **cluster.group_targets, **pinned}
    else:
        groups = [_fixed(group, pinned) for group in blueprint.groups]
        targets = distribute(command.target_workers, groups, backlogs)
    total = sum(targets.values())
    wanted = command.target_workers if command.target_workers is not None else total
    pointer = "/target_workers" if command.target_workers is not None else "/groups"
    if not cluster.min_workers <= wanted <= cluster.max_workers:
        text = f"{wanted} agents are outside the cluster's {cluster.min_workers} to {cluster.max_workers}"
        raise InvalidInput("the cluster cannot have that size", [Fault(pointer, text)])
    if total != wanted or any(targets[name] != count for name, count in pinned.items()):
        text = f"the groups can hold {total} agents that way, not {wanted}"
        raise InvalidInput("the groups cannot hold that many", [Fault(pointer, text)])
    cluster.group_targets, cluster.target_workers, cluster.scaled_at = targets, total, func.now()
    if command.if_generation is None:
        cluster.last_active = func.now()  # somebody has plans with it, so its idle time begins anew


def _pinned(groups: Mapping[str, int], blueprint: Blueprint) -> dict[str, int]:
    """Return the counts by the groups' proper names; raise InvalidInput for what is unknown or out of range."""
    faults, pinned = [], {}
    for name, count in groups.items():
        group, pointer = blueprint.group(name), "/groups/" + name.replace("~", "~0").replace("/", "~1")
        if group is None:
            known = ", ".join(repr(group.name) for group in blueprint.groups)
            faults.append(Fault(pointer, f"there is no group {name!r}; there are {known}"))
        elif not group.count.minimum <= count <= group.count.maximum:
            faults.append(Fault(pointer, f"must be from {group.count.minimum} to {group.count.maximum}"))
        else:
            pinned[group.name] = count
    if faults:
        raise InvalidInput("the groups cannot be scaled that way", faults)
    return pinned


def _fixed(group: AgentGroup, pinned: Mapping[str, int]) -> AgentGroup:
    if group.name not in pinned:
        return group
    return replace(group, count=Count(pinned[group.name], pinned[group.name], scalable=False))


def _refuse_secrets(config: Mapping[str, Any] | None) -> None:
    """Raise InvalidInput for secrets in a cluster's config: they go by reference."""
    found = list(secrets_in(config, "/config"))
    if found:
        raise InvalidInput("the config holds secrets", [Fault(one, f"a secret here {ADVICE}") for one in found])


def _update(cluster: Cluster, command: UpdateCluster, blueprint: Blueprint) -> None:
    _refuse_secrets(command.config)
    low = command.min_workers if command.min_workers is not None else cluster.min_workers
    high = command.max_workers if command.max_workers is not None else cluster.max_workers
    target = max(low, min(cluster.target_workers, high))
    faults = bound_faults(low, high, target, blueprint.groups)
    if faults:
        raise InvalidInput("the numbers of workers do not fit together", faults)
    cluster.min_workers, cluster.max_workers = low, high
    if target != cluster.target_workers:
        cluster.group_targets, cluster.target_workers = distribute(target, blueprint.groups), target
        cluster.scaled_at = func.now()
    plain: dict[str, Any] = {"name": command.name, "description": command.description, "config": command.config}
    plain |= {"budget_per_day": command.budget_per_day, "paused": command.paused}
    plain["tags"] = None if command.tags is None else tenancy.tags_changed(cluster.tags, command.tags)
    for name, value in plain.items():
        if value is not None:
            setattr(cluster, name, value)
    if command.budget_per_day is not None and command.budget_per_day > (cluster.over_budget_limit or 0.0):
        cluster.over_budget_on = None  # of a smaller one; the next tick sees whether this one is spent, too


def _reactivate(cluster: Cluster, blueprint: Blueprint, backlogs: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Set at least min_workers, with an agent in every group for which a job waits or comes, if max_workers allows."""
    # One each, however many jobs wait, unless the autoscaler has sized them: it does so as soon as they work.
    claims = {**dict.fromkeys((name for name, count in backlogs.items() if count), 1), **wanted}
    # A group whose minimum is positive has its agents anyway; what is wanted beyond comes on top.
    extra = sum(max(0, claims.get(group.name, 0) - group.count.minimum) for group in blueprint.groups)
    fixed = sum(group.count.minimum for group in blueprint.groups)
    target = min(cluster.max_workers, max(cluster.min_workers, fixed + extra))
    cluster.group_targets = distribute(target, blueprint.groups, claims)
    cluster.target_workers = sum(cluster.group_targets.values())
    cluster.scaled_at = func.now()
