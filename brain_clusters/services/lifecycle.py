"""The one door in. HTTP, queued commands and the autoscaler all call ``submit``; nobody else sets a desired count.

A command is recorded with its cluster's new intent and targets in one transaction, then published by its
operation's id. Running it is ``services.operations``.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Operation, StoredBlueprint
from brain_clusters.domain import budgets
from brain_clusters.domain.budgets import Spent
from brain_clusters.domain.commands import (
    Command,
    CreateCluster,
    HibernateCluster,
    Origin,
    ScaleCluster,
    UpdateCluster,
    as_request,
)
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.specs import AgentGroup, Blueprint, Count, slug
from brain_clusters.domain.states import Intent, OperationKind, advance
from brain_clusters.errors import Conflict, Fault, InvalidInput, NotFound, TemporaryError
from brain_clusters.services import blueprints, history, ledger, metering, served
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

# Jobs that waited longer than this when sleep was asked for do not wake the cluster again; newer ones do.
_OLD_BACKLOG_SECONDS = 2.0
# Actors whose commands no person gave.
_BY_ITSELF = ("job", "alert")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A recorded command. repeated: the same message came before, and this is what it made then.

    before: the cluster's agents by group until then.
    """

    operation: Operation
    cluster: Cluster
    repeated: bool = False
    before: Mapping[str, int] = field(default_factory=dict)


def submit(control: Control, command: Command, origin: Origin, entry: ledger.Entry | None = None) -> Accepted:
    """Record ``command`` and ask a worker to run it. entry: the decision that it carries out, for the ledger; what a
    job or an alert brought about by itself is entered here, without inputs, as nothing was weighed.

    Raises InvalidInput, NotFound or Conflict when it cannot be, and TemporaryError when PostgreSQL is away. With
    Redis away it is recorded all the same, and delivered later by the sweep.
    """
    backlogs = waiting_jobs(control, command)
    with control.database.transaction() as session:
        if isinstance(command, CreateCluster):
            served.guard(control, session, command.blueprint_id, origin.message_id)
        accepted = record(session, command, origin, control.settings.start_timeout_seconds, backlogs)
        if entry is None and origin.actor in _BY_ITSELF:
            entry = _brought_about(accepted, origin)
        if entry is not None and not accepted.repeated:
            ledger.write(session, entry, accepted.operation.id)
    if not accepted.repeated:
        publish(control, accepted.operation)
    return accepted


def _brought_about(accepted: Accepted, origin: Origin) -> ledger.Entry:
    cluster = accepted.cluster
    runs = cluster.intent is Intent.RUNNING
    after = cluster.group_targets if runs else dict.fromkeys(accepted.before, 0)
    kind = str(accepted.operation.kind)
    return ledger.Entry(cluster.id, kind, f"{origin.actor}: {origin.reason}", accepted.before, after, inputs={})


def publish(control: Control, operation: Operation) -> None:
    """Send an operation's id to the workers; when Redis is away, leave it to the sweep."""
    try:
        control.broker.publish_operation(str(operation.id))
    except TemporaryError as exc:
        log.warning("operation=%s is delivered later: %s", operation.id, exc)


def record(
    session: Session, command: Command, origin: Origin, start_timeout: float, backlogs: Mapping[str, int]
) -> Accepted:
    """Write a command's intent: the cluster's row, the operation and an event. The caller commits and publishes.

    backlogs: waiting jobs by group name, where they are known; for HibernateCluster those that waited long.
    """
    repeated = _made_before(session, origin)
    if repeated is not None:
        return repeated
    targets: Mapping[str, int] = {}
    if isinstance(command, CreateCluster):
        cluster = _create(session, command)
    else:
        cluster = locked(session, command.cluster_id)
        targets = dict(cluster.group_targets)
        _guard_generation(cluster, getattr(command, "if_generation", None))
        before = cluster.intent
        cluster.intent = advance(before, command.kind, status=cluster.status)
        _apply(session, cluster, command, backlogs, before)
        cluster.generation += 1
    operation = _operation(cluster, command, origin, start_timeout)
    session.add(operation)
    session.flush()
    history.record(
        session, "operation.accepted", origin.reason, cluster_id=cluster.id, actor=origin.actor,
        operation_id=operation.id, data={"kind": str(command.kind), **operation.request, **origin.inputs},
    )  # fmt: skip
    session.flush()
    session.refresh(cluster)  # its times came from the database, and the caller reads them after the commit
    return Accepted(operation, cluster, before=targets)


def locked(session: Session, cluster_id: str) -> Cluster:
    """Return a cluster whose row this transaction holds; raise NotFound."""
    found = session.scalars(select(Cluster).where(Cluster.id == cluster_id).with_for_update()).first()
    if found is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    return found


def _made_before(session: Session, origin: Origin) -> Accepted | None:
    if origin.message_id is None:
        return None
    # Two deliveries at once: the second waits here for the first.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(origin.message_id, 0))))
    operation = session.scalars(select(Operation).where(Operation.message_id == origin.message_id)).first()
    if operation is None:
        return None
    if operation.cluster_id is None:
        raise Conflict(f"this message came before, as operation {operation.id}, and failed")
    return Accepted(operation, session.get_one(Cluster, operation.cluster_id), repeated=True)


def _guard_generation(cluster: Cluster, wanted: int | None) -> None:
    if wanted is not None and cluster.generation != wanted:
        raise Conflict("another command came first; look again", status=str(cluster.status))


def _operation(cluster: Cluster, command: Command, origin: Origin, start_timeout: float) -> Operation:
    starts = command.kind in (OperationKind.CREATE, OperationKind.REACTIVATE, OperationKind.SCALE, OperationKind.UPDATE)
    return Operation(
        kind=command.kind,
        cluster_id=cluster.id,
        origin=origin.actor,
        request=as_request(command),
        message_id=origin.message_id,
        generation=cluster.generation,
        published_at=func.now(),
        # Agents that leave may have hours of work to finish, so only what starts agents has a deadline.
        deadline_at=func.now() + timedelta(seconds=start_timeout) if starts else None,
    )


# --- create -----------------------------------------------------------------------------------------------------


def _create(session: Session, command: CreateCluster) -> Cluster:
    stored = blueprints.newest(session, command.blueprint_id)
    blueprint = blueprints.parsed(session, stored.id, stored.version)
    low, high, target = _bounds(command, blueprint)
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
            tags=list(command.tags or blueprint.tags),
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


def _bounds(command: CreateCluster, blueprint: Blueprint) -> tuple[int, int, int]:
    """Return min, max and target; raise InvalidInput with all that does not fit together."""
    low = command.min_workers if command.min_workers is not None else blueprint.min_workers
    high = command.max_workers if command.max_workers is not None else max(blueprint.max_workers, low)
    if command.max_workers is not None and command.min_workers is None:
        low = min(low, high)
    target = command.target_workers
    if target is None:
        target = max(low, min(blueprint.default_workers, high))
    faults = _bound_faults(low, high, target, blueprint.groups)
    if faults:
        raise InvalidInput("the numbers of workers do not fit together", faults)
    return low, high, target


def _bound_faults(low: int, high: int, target: int, groups: tuple[AgentGroup, ...]) -> list[Fault]:
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


# --- the others -------------------------------------------------------------------------------------------------


def _apply(session: Session, cluster: Cluster, command: Command, backlogs: Mapping[str, int], before: Intent) -> None:
    """Write what ``command`` wants into the cluster's row."""
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


def _update(cluster: Cluster, command: UpdateCluster, blueprint: Blueprint) -> None:
    low = command.min_workers if command.min_workers is not None else cluster.min_workers
    high = command.max_workers if command.max_workers is not None else cluster.max_workers
    target = max(low, min(cluster.target_workers, high))
    faults = _bound_faults(low, high, target, blueprint.groups)
    if faults:
        raise InvalidInput("the numbers of workers do not fit together", faults)
    cluster.min_workers, cluster.max_workers = low, high
    if target != cluster.target_workers:
        cluster.group_targets, cluster.target_workers = distribute(target, blueprint.groups), target
        cluster.scaled_at = func.now()
    plain: dict[str, Any] = {"name": command.name, "description": command.description, "config": command.config}
    plain["budget_per_day"] = command.budget_per_day
    plain["tags"] = None if command.tags is None else list(command.tags)
    for name, value in plain.items():
        if value is not None:
            setattr(cluster, name, value)


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


def waiting_jobs(control: Control, command: Command) -> Mapping[str, int]:
    """Return the waiting jobs by group that ``command`` is to be judged by; {} when they are unknown or no matter."""
    if command.kind not in (OperationKind.SCALE, OperationKind.REACTIVATE, OperationKind.HIBERNATE):
        return {}
    if getattr(command, "if_generation", None) is not None:
        return {}
    with control.database.transaction() as session:
        cluster = session.get(Cluster, getattr(command, "cluster_id", ""))
        if cluster is None:
            return {}
        blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    try:
        if command.kind is OperationKind.HIBERNATE:
            return served.old_lengths(control, cluster.id, blueprint, _OLD_BACKLOG_SECONDS)
        return served.lengths(control, cluster.id, blueprint)
    except TemporaryError as exc:
        log.warning("cluster=%s backlog is unknown: %s", cluster.id, exc)
        return {}
