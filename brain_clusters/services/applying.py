"""Carrying out declared states: what ``services.planned`` found, through everyone's door.

A second time there is nothing left to do; after a kill in the middle it does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brain_clusters.blueprints.clusterfile import DeclaredCluster
from brain_clusters.domain.commands import Command, Origin, RolloutCluster, UpdateCluster
from brain_clusters.domain.specs import Blueprint
from brain_clusters.errors import BrainError, Conflict, TemporaryError
from brain_clusters.services import blueprints, lifecycle, moves, operations
from brain_clusters.services.control import Control
from brain_clusters.services.moves import Move
from brain_clusters.services.planned import BOUNDS, Change, Plan, creation, plan, sentence


def apply(control: Control, documents: list[str], origin: Origin, fingerprint: str | None = None) -> Plan:
    """Carry out the plan of ``documents``; return it with the operations that it began.

    What is refused while it is carried out is told in its change, and keeps nothing else from being done. Raises
    InvalidInput, and Conflict when a document is refused, or the plan is not that of ``fingerprint`` any more: then
    nothing was done.
    """
    found = plan(control, documents)
    if fingerprint is not None and found.fingerprint != fingerprint:
        raise Conflict("what is there has changed since that plan was made; plan again and look at it")
    refused = [f"{one.kind} {one.id!r}: {one.reason}" for one in found.changes if one.action == "refused"]
    if refused:
        raise Conflict("nothing was applied. " + " ".join(f"{told}." for told in refused))
    order = sorted(zip(found.changes, found.parts, strict=True), key=lambda pair: pair[0].kind)  # blueprints first
    for change, part in order:
        try:
            if isinstance(part.said, Blueprint):
                if change.action != "unchanged":
                    blueprints.store(control, part.text)
                roll_out(control, change.moves, origin)
            else:
                _do_cluster(control, change, part.said, origin)
        except TemporaryError:
            raise
        except BrainError as exc:
            change.error = operations.describe(exc)
    return found


def roll_out(control: Control, going: Sequence[Move], origin: Origin) -> None:
    """Begin the rollouts of ``going``; note with each its operation, or why it was refused."""
    for move in going:
        if not move.happens:
            continue
        try:
            command = RolloutCluster(cluster_id=move.cluster_id, version=move.to_version)
            move.operation_id = str(lifecycle.submit(control, command, origin).operation.id)
        except TemporaryError:
            raise
        except BrainError as exc:
            move.action, move.reason = "refused", sentence(exc)


def of_stored(control: Control, blueprint_id: str, version: str) -> list[Move]:
    """Return the clusters that would follow a stored version of their blueprint, and those that would not."""
    with control.database.transaction() as session:
        return moves.of_blueprint(session, blueprints.parsed(session, blueprint_id, version), set())


def _do_cluster(control: Control, change: Change, said: DeclaredCluster, origin: Origin) -> None:
    commands: list[Command] = []
    if change.action == "create":
        commands.append(creation(said))
        if said.fields.get("paused"):
            commands.append(UpdateCluster(cluster_id=said.id, paused=True))
    elif change.action == "update":
        commands += _updates(said, {one.field: one.after for one in change.fields})
    for command in commands:
        change.operations.append(str(lifecycle.submit(control, command, origin).operation.id))


def _updates(said: DeclaredCluster, changed: Mapping[str, Any]) -> list[Command]:
    """Return the commands that change a cluster: bounds together with the version that they may be meant for."""
    commands: list[Command] = []
    rest = dict(changed)
    if "version" in rest:
        bounds = {name: rest.pop(name) for name in BOUNDS if name in rest}
        commands.append(RolloutCluster(cluster_id=said.id, version=rest.pop("version"), **bounds))
    if "tags" in rest:
        rest["tags"] = tuple(rest["tags"])
    if rest:
        commands.append(UpdateCluster(cluster_id=said.id, **rest))
    return commands
