"""The lifecycle commands, as frozen data. Whoever sends one, it enters through ``services.lifecycle.submit``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from brain_clusters.domain.states import ClusterType, OperationKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCluster:
    """Make a cluster from a version of a blueprint, by default the newest active one, and start its agents."""

    kind: ClassVar[OperationKind] = OperationKind.CREATE
    blueprint_id: str
    version: str | None = None
    name: str
    id: str | None = None
    type: ClusterType | None = None
    target_workers: int | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    budget_per_day: float | None = None
    parent_cluster_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCluster:
    """Change what can be edited. A field that is None stays as it is; narrower bounds move the target with them.

    paused: whether the autoscaler is to leave it alone.
    """

    kind: ClassVar[OperationKind] = OperationKind.UPDATE
    cluster_id: str
    name: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None
    config: Mapping[str, Any] | None = None
    budget_per_day: float | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleCluster:
    """Set the number of all agents, or of single groups by name, or both.

    if_generation: do nothing but fail with Conflict when another command came first (the autoscaler's guard).
    """

    kind: ClassVar[OperationKind] = OperationKind.SCALE
    cluster_id: str
    target_workers: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    if_generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HibernateCluster:
    """Let every agent finish and leave, the supervisor too. Waiting jobs stay where they are.

    if_generation: as for ScaleCluster.
    """

    kind: ClassVar[OperationKind] = OperationKind.HIBERNATE
    cluster_id: str
    if_generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactivateCluster:
    """Wake a sleeping cluster with at least min_workers, and ``groups``: so many agents of each, by name."""

    kind: ClassVar[OperationKind] = OperationKind.REACTIVATE
    cluster_id: str
    groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyCluster:
    """Stop every agent, drop what waits, and keep the rows as history."""

    kind: ClassVar[OperationKind] = OperationKind.DESTROY
    cluster_id: str
    if_generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCluster:
    """Bring a cluster to another version of its blueprint, or say what is to become of the rollout under way.

    version: by default the newest active one; with undo, that before the present one. max_parallel and the others
    stand in place of the blueprint's ``rollout:``; durations as people write them. min_workers, max_workers: the
    cluster's new bounds. steer: only pause the rollout that is under way, or let it go on.
    """

    kind: ClassVar[OperationKind] = OperationKind.ROLLOUT
    cluster_id: str
    version: str | None = None
    undo: bool | None = None
    max_parallel: int | str | None = None
    min_healthy_time: float | str | None = None
    progress_deadline: float | str | None = None
    auto_revert: bool | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    steer: Literal["pause", "resume"] | None = None


Command = (
    CreateCluster
    | UpdateCluster
    | ScaleCluster
    | HibernateCluster
    | ReactivateCluster
    | DestroyCluster
    | RolloutCluster
)


# The actor of what nobody asked for: such a command takes no agent from its work.
AUTOSCALER = "autoscaler"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a command and why, for the history. message_id makes a redelivered message the same operation.

    seen: tags of the cluster as the sender read it (``services.etags``); when it has another by then, it is refused.
    """

    actor: str
    reason: str
    message_id: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()


def as_request(command: Command) -> dict[str, Any]:
    """Return ``command`` as JSON-ready data, without what it does not state."""
    found = {key: value for key, value in asdict(command).items() if value not in (None, (), {})}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
