"""The rollouts of clusters: how they begin, are undone, paused and ended, and their history.

A rollout sets the cluster's version at once, so that whatever starts from then on is of the new one. How the agents
that are there follow is ``services.rolling``, at every reconcile.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Text, cast, func, select, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Job, Operation, Rollout, StoredBlueprint
from brain_clusters.domain.commands import Origin, RolloutCluster
from brain_clusters.domain.durations import parse_duration
from brain_clusters.domain.rollouts import moved_targets
from brain_clusters.domain.specs import Blueprint, RolloutPolicy
from brain_clusters.domain.states import (
    FINISHED_JOB_STATUSES,
    ROLLOUTS_UNDER_WAY,
    OperationStatus,
    RolloutStatus,
)
from brain_clusters.errors import Conflict, Fault, InvalidInput, NotFound
from brain_clusters.services import blueprints, clusters, desired, history
from brain_clusters.services.endings import finish
from brain_clusters.services.paging import Page, page

_OVER = (RolloutStatus.SUCCEEDED, RolloutStatus.FAILED, RolloutStatus.SUPERSEDED)


def apply(
    session: Session, cluster: Cluster, command: RolloutCluster, origin: Origin, backlogs: Mapping[str, int]
) -> Rollout:
    """Write what ``command`` wants into the rows; the caller holds the cluster's. Return the rollout that it concerns.

    backlogs: waiting jobs by group, where they are known. Raises Conflict, InvalidInput, NotFound.
    """
    found = newest(session, cluster.id)
    under_way = found if found is not None and found.status in ROLLOUTS_UNDER_WAY else None
    if command.steer is not None:
        return _steer(session, cluster, under_way, command.steer, origin)
    version = _wanted(session, cluster, command, under_way)
    before = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    after = blueprints.parsed(session, cluster.blueprint_id, version)
    stranded = unfinished(session, cluster.id, before, after, backlogs)
    if stranded and not command.undo:
        raise Conflict(left_behind(stranded, version), status=str(cluster.status))
    rollout = _begun(cluster, command, origin, under_way, version)
    rollout.policy, rollout.stranded = asdict(_policy(command, after)), stranded
    if under_way is not None:
        end(session, cluster, under_way, RolloutStatus.SUPERSEDED, f"a rollout to {version!r} took its place")
    session.flush()  # the one that is over makes room: only one may be under way
    session.add(rollout)
    bounds = moved_bounds(cluster, before, after, command)
    switch(session, cluster, version, bounds, moved_targets(cluster.group_targets, after.groups, *bounds))
    history.record(
        session, "rollout.started", f"from version {rollout.from_version!r} to {version!r}: {origin.reason}",
        cluster_id=cluster.id, actor=origin.actor, data=_told(rollout),
    )  # fmt: skip
    return rollout


def _begun(
    cluster: Cluster, command: RolloutCluster, origin: Origin, under_way: Rollout | None, version: str
) -> Rollout:
    same = under_way is not None and under_way.to_version == version == cluster.blueprint_version
    bounds = {"min_workers": cluster.min_workers, "max_workers": cluster.max_workers}
    # One that only changes its pace goes back to where the first one began.
    before = under_way.before if same and under_way else {**bounds, "group_targets": dict(cluster.group_targets)}
    return Rollout(
        id=uuid.uuid4(),
        cluster_id=cluster.id,
        from_version=under_way.from_version if same and under_way else cluster.blueprint_version,
        to_version=version,
        undo=bool(command.undo),
        before=before,
        reason=origin.reason,
        origin=origin.actor,
    )


def _steer(session: Session, cluster: Cluster, under_way: Rollout | None, steer: str, origin: Origin) -> Rollout:
    """Pause a rollout, or let it go on; repeated, it changes nothing. Raises Conflict when there is none to pause."""
    if under_way is None:
        raise Conflict(f"no rollout of cluster {cluster.id!r} is under way", status=str(cluster.status))
    if under_way.status is RolloutStatus.REVERTING:
        told = f"version {under_way.to_version!r} failed, and {under_way.from_version!r} is coming back"
        raise Conflict(f"{told}; a rollout of yours would take its place", status=str(cluster.status))
    wanted = RolloutStatus.PAUSED if steer == "pause" else RolloutStatus.RUNNING
    if under_way.status is not wanted:
        under_way.status = wanted
        under_way.pending_since = None  # the time of a pause is no lack of progress
        verb = "paused" if steer == "pause" else "resumed"
        history.record(
            session, f"rollout.{verb}", origin.reason, cluster_id=cluster.id, actor=origin.actor, data=_told(under_way)
        )
    return under_way


# --- which version ----------------------------------------------------------------------------------------------


def _wanted(session: Session, cluster: Cluster, command: RolloutCluster, under_way: Rollout | None) -> str:
    """Return the version to go to. Raises NotFound, and Conflict for where the cluster is, or is going, already."""
    present = cluster.blueprint_version
    if command.version is not None:
        version = blueprints.stored(session, cluster.blueprint_id, command.version).version
    elif command.undo and under_way is not None and under_way.status is RolloutStatus.REVERTING:
        raise Conflict(f"version {present!r} is coming back already; name another one", status=str(cluster.status))
    elif command.undo:
        version = previous_version(session, cluster)
    else:
        version = blueprints.newest(session, cluster.blueprint_id).version
    paced = (command.max_parallel, command.min_healthy_time, command.progress_deadline, command.auto_revert)
    if version == present and (under_way is None or all(one is None for one in paced)):
        going = "is going to" if under_way is not None else "has"
        told = f"cluster {cluster.id!r} {going} version {version!r} already"
        raise Conflict(f"{told}; name another one, or store a new one first", status=str(cluster.status))
    return version


def previous_version(session: Session, cluster: Cluster) -> str:
    """Return the version that a cluster had before its present one. Raises Conflict when it had no other."""
    went = session.scalars(
        select(Rollout.from_version)
        .where(
            Rollout.cluster_id == cluster.id,
            Rollout.to_version == cluster.blueprint_version,
            Rollout.status.in_((*_OVER, RolloutStatus.RUNNING, RolloutStatus.PAUSED)),
        )
        .order_by(Rollout.created_at.desc())
        .limit(1)
    ).first()
    if went is None:
        told = f"cluster {cluster.id!r} had no version before {cluster.blueprint_version!r}"
        raise Conflict(f"{told}; name the version to go to", status=str(cluster.status))
    return went


def _policy(command: RolloutCluster, blueprint: Blueprint) -> RolloutPolicy:
    """Return how to replace agents: what the command says, else the new version. Raises InvalidInput."""
    stated = blueprint.rollout

    def seconds(said: float | str | None, otherwise: float) -> float:
        return otherwise if said is None else parse_duration(said)

    policy = RolloutPolicy(
        max_parallel=stated.max_parallel if command.max_parallel is None else command.max_parallel,
        min_healthy_seconds=seconds(command.min_healthy_time, stated.min_healthy_seconds),
        auto_revert=stated.auto_revert if command.auto_revert is None else command.auto_revert,
        progress_deadline_seconds=seconds(command.progress_deadline, stated.progress_deadline_seconds),
    )
    if policy.progress_deadline_seconds <= policy.min_healthy_seconds:
        told = f"no agent can be ready for {policy.min_healthy_seconds:g} s within the progress_deadline"
        fault = Fault("/progress_deadline", f"must be longer than min_healthy_time: {told}")
        raise InvalidInput("the rollout could never succeed", [fault])
    return policy


# --- what the cluster becomes -----------------------------------------------------------------------------------


def moved_bounds(cluster: Cluster, before: Blueprint, after: Blueprint, command: RolloutCluster) -> tuple[int, int]:
    """Return the cluster's bounds under another version: the version's own, where it had those of the one before.

    Raises InvalidInput where bounds of its own do not fit the new version's groups.
    """
    inherited = (cluster.min_workers, cluster.max_workers) == (before.min_workers, before.max_workers)
    low, high = (after.min_workers, after.max_workers) if inherited else (cluster.min_workers, cluster.max_workers)
    low = low if command.min_workers is None else command.min_workers
    high = high if command.max_workers is None else command.max_workers
    faults = desired.bound_faults(low, high, low, after.groups)
    if faults:
        told = f"the cluster's bounds do not fit version {after.version!r}; change them first, or with it"
        raise InvalidInput(told, faults)
    return low, high


def switch(
    session: Session, cluster: Cluster, version: str, bounds: tuple[int, int], targets: Mapping[str, int]
) -> None:
    """Give a cluster another version, with bounds and counts that fit it. Its agents follow by reconcile."""
    # Sorted: another cluster may go the other way in this moment.
    for of, change in sorted(((cluster.blueprint_version, -1), (version, 1))):
        session.execute(
            update(StoredBlueprint)
            .where(StoredBlueprint.id == cluster.blueprint_id, StoredBlueprint.version == of)
            .values(instances_active=func.greatest(StoredBlueprint.instances_active + change, 0))
            .execution_options(synchronize_session=False)
        )
    cluster.blueprint_version = version
    cluster.min_workers, cluster.max_workers = bounds
    if dict(targets) != cluster.group_targets:
        cluster.group_targets, cluster.target_workers = dict(targets), sum(targets.values())
        cluster.scaled_at = func.now()


def unfinished(
    session: Session, cluster_id: str, before: Blueprint, after: Blueprint, backlogs: Mapping[str, int]
) -> dict[str, int]:
    """Return by group how many unfinished jobs are of groups that ``after`` has not. backlogs: as for ``apply``."""
    gone = [group.name for group in before.groups if after.group(group.name) is None]
    if not gone:
        return {}
    rows = session.execute(
        select(Job.group_name, func.count())
        .where(Job.cluster_id == cluster_id, Job.group_name.in_(gone), Job.status.not_in(FINISHED_JOB_STATUSES))
        .group_by(Job.group_name)
    )
    known = {name: int(count) for name, count in rows.all()}
    counts = {name: max(known.get(name, 0), backlogs.get(name, 0)) for name in gone}
    return {name: count for name, count in counts.items() if count}


def left_behind(stranded: Mapping[str, int], version: str) -> str:
    """Return why a version that lacks groups with unfinished jobs is refused, and what to do."""
    told = ", ".join(f"{count} unfinished of {name!r}" for name, count in sorted(stranded.items()))
    return f"version {version!r} lacks groups that have jobs: {told}; let these end or cancel them, then roll out again"


# --- ends and history -------------------------------------------------------------------------------------------


def end(session: Session, cluster: Cluster, rollout: Rollout, status: RolloutStatus, reason: str) -> None:
    """End a rollout, its operation with it, and tell so."""
    rollout.status, rollout.reason, rollout.finished_at = status, reason, func.clock_timestamp()
    history.record(
        session, f"rollout.{status}", reason, cluster_id=cluster.id, operation_id=rollout.operation_id,
        data=_told(rollout),
    )  # fmt: skip
    operation = session.get(Operation, rollout.operation_id) if rollout.operation_id else None
    if operation is None or operation.finished_at is not None:
        return
    if status is RolloutStatus.SUCCEEDED:
        result = {"status": str(cluster.status), "blueprint_version": rollout.to_version}
        finish(session, operation, OperationStatus.SUCCEEDED, None, result)
    else:
        finish(session, operation, OperationStatus.FAILED, {"type": str(status), "message": reason})


def _told(rollout: Rollout) -> dict[str, Any]:
    told = {"rollout_id": str(rollout.id), "from": rollout.from_version, "to": rollout.to_version}
    return told | ({"stranded": dict(rollout.stranded)} if rollout.stranded else {})


def newest(session: Session, cluster_id: str) -> Rollout | None:
    """Return a cluster's last rollout."""
    query = select(Rollout).where(Rollout.cluster_id == cluster_id).order_by(Rollout.created_at.desc(), Rollout.id)
    return session.scalars(query.limit(1)).first()


def went_back_from(session: Session, cluster_ids: Sequence[str], version: str) -> set[str]:
    """Return the clusters that have left ``version`` again: it failed there, or somebody undid it."""
    had = (Rollout.to_version == version) | (Rollout.from_version == version)
    return set(session.scalars(select(Rollout.cluster_id).where(Rollout.cluster_id.in_(cluster_ids), had)))


def get(session: Session, rollout_id: str) -> Rollout:
    """Return a rollout; raise NotFound."""
    try:
        wanted = uuid.UUID(rollout_id)
    except ValueError:
        wanted = None
    found = None if wanted is None else session.scalars(select(Rollout).where(Rollout.id == wanted)).first()
    if found is None:
        raise NotFound(f"there is no rollout {rollout_id!r}")
    return found


def listing(session: Session, cluster_id: str, *, limit: int, cursor: str | None) -> Page[Rollout]:
    """Return a page of a cluster's rollouts, newest first."""
    clusters.get(session, cluster_id)
    query = select(Rollout).where(Rollout.cluster_id == cluster_id)
    order = (Rollout.created_at, cast(Rollout.id, Text))
    return page(session, query, order, lambda row: (row.created_at, str(row.id)), limit=limit, cursor=cursor)


def under_way_of(session: Session, cluster_ids: list[str]) -> dict[str, Rollout]:
    """Return the rollouts that are under way, by cluster."""
    query = select(Rollout).where(Rollout.cluster_id.in_(cluster_ids), Rollout.status.in_(ROLLOUTS_UNDER_WAY))
    return {row.cluster_id: row for row in session.scalars(query)}
