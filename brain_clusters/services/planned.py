"""Declared states: what texts of blueprints and clusters would change. It looks, and writes nothing.

``services.applying`` carries a plan out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal

from sqlalchemy.orm import Session

from brain_clusters.blueprints.clusterfile import DeclaredCluster, Part, parse_documents
from brain_clusters.blueprints.loader import load
from brain_clusters.db.models import Cluster, StoredBlueprint
from brain_clusters.domain.commands import CreateCluster
from brain_clusters.domain.comparing import Field, differing, unified_diff
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import ClusterType, Intent
from brain_clusters.errors import BrainError, Conflict, InvalidInput, NotFound
from brain_clusters.services import blueprints, moves, tenancy
from brain_clusters.services.control import Control
from brain_clusters.services.moves import Move

Action = Literal["create", "update", "unchanged", "refused"]
# What cannot be changed once a cluster is made.
_FIXED = ("type",)
BOUNDS = ("min_workers", "max_workers")


@dataclass(slots=True)
class Change:
    """What becomes of one document. document: the place of its text; fields: what differs; diff: of a blueprint's text
    to the version before; moves: the clusters that it concerns; reason: why it is refused, or what is to be known.
    """

    document: int
    kind: Literal["blueprint", "cluster"]
    id: str
    version: str | None
    action: Action
    fields: list[Field] = field(default_factory=list)
    diff: str = ""
    moves: list[Move] = field(default_factory=list)
    reason: str | None = None
    operations: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None

    def signature(self) -> list[Any]:
        """Return what makes it another change: not its figures, which the autoscaler moves all the time."""
        going = [[one.cluster_id, one.action, one.from_version, one.to_version] for one in self.moves]
        return [self.kind, self.id, self.version, self.action, [asdict(one) for one in self.fields], going]


@dataclass(slots=True)
class Plan:
    """All changes, in the order of the documents."""

    parts: Sequence[Part]
    changes: Sequence[Change]

    @property
    def fingerprint(self) -> str:
        """What this plan is known by, for ``apply`` to see that it still is the one that was looked at."""
        told = [[*change.signature(), part.text] for change, part in zip(self.changes, self.parts, strict=True)]
        return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32]

    @property
    def needs_admin(self) -> bool:
        """Whether blueprints are among the documents."""
        return any(change.kind == "blueprint" for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        going = [move for change in self.changes for move in change.moves if move.happens]
        return {
            "fingerprint": self.fingerprint,
            "changed": sum(change.action in ("create", "update") or _moves(change) for change in self.changes),
            "refused": sum(change.action == "refused" for change in self.changes),
            "changes": [_change_as_dict(change) for change in self.changes],
            "agents": moves.agents_of(going),
            "cost_per_hour": moves.cost_of(going),
        }


def _moves(change: Change) -> bool:
    return any(move.happens for move in change.moves)


def _change_as_dict(change: Change) -> dict[str, Any]:
    fields = [asdict(one) for one in change.fields]
    return {
        **{name: getattr(change, name) for name in ("document", "kind", "id", "version", "action", "reason", "diff")},
        "fields": fields,
        "clusters": [move.as_dict() for move in change.moves],
        "operations": change.operations,
        "error": change.error,
    }


# --- looking ----------------------------------------------------------------------------------------------------


def kinds_of(documents: list[str]) -> set[str]:
    """Return what kinds of documents there are. Raises InvalidInput with all faults."""
    return {part.kind for part in parse_documents(documents)}


def plan(control: Control, documents: list[str]) -> Plan:
    """Return what ``documents`` would change. Raises InvalidInput with all faults."""
    parts = parse_documents(documents)
    with control.database.transaction() as session:
        looked = _Look(session, parts)
        return Plan(parts, [looked.change(part) for part in parts])


class _Look:
    """One look at what is there, in one transaction."""

    def __init__(self, session: Session, parts: Sequence[Part]) -> None:
        self._session = session
        self._given = {(one.id, one.version): one for part in parts if isinstance(one := part.said, Blueprint)}
        self._new = {one.id: one.version for one in self._given.values() if self._stored(one) is None}
        # A cluster file that states a version has the last word about its cluster.
        self._pinned = {one.id for part in parts if isinstance(one := part.said, DeclaredCluster) and one.version}

    def change(self, part: Part) -> Change:
        said = part.said
        if isinstance(said, Blueprint):
            return self._blueprint(part, said)
        change = Change(part.document, "cluster", said.id, said.version, "unchanged")
        try:
            self._cluster(change, said)
        except (Conflict, InvalidInput, NotFound) as exc:
            change.action, change.reason = "refused", sentence(exc)
        return change

    def _stored(self, blueprint: Blueprint) -> StoredBlueprint | None:
        return self._session.get(StoredBlueprint, (blueprint.id, blueprint.version))

    def _newest(self, blueprint_id: str) -> StoredBlueprint | None:
        try:
            return blueprints.newest(self._session, blueprint_id)
        except NotFound:
            return None

    def _find(self, blueprint_id: str, version: str | None) -> Blueprint:
        """Return a version of a blueprint, of those that are given or stored. Raises NotFound."""
        wanted = version or self._new.get(blueprint_id)
        if (blueprint_id, wanted) in self._given:
            return self._given[blueprint_id, str(wanted)]
        stored = blueprints.stored(self._session, blueprint_id, wanted)
        return blueprints.parsed(self._session, stored.id, stored.version)

    # --- blueprints

    def _blueprint(self, part: Part, said: Blueprint) -> Change:
        stored, newest = self._stored(said), self._newest(said.id)
        change = Change(part.document, "blueprint", said.id, said.version, "create")
        before = stored or newest
        if before is not None:
            change.diff = unified_diff(
                before.blueprint_yaml.strip(), part.text.strip(), names=(before.version, f"{said.version} (given)")
            )
        change.fields = differing(_plain(before.blueprint_yaml) if before else {}, _plain(part.text))
        if stored is not None and change.diff:
            change.action = "refused"
            told = f"version {said.version!r} is stored with another text, and a stored version never changes"
            change.reason = f"{told}; give metadata.version a new value"
        elif stored is not None:
            change.action, change.diff, change.fields = ("unchanged" if stored.is_active else "update"), "", []
        if change.action != "refused" and self._is_newest(said, stored, newest):
            change.moves = moves.of_blueprint(self._session, said, self._pinned)
        return change

    def _is_newest(self, said: Blueprint, stored: StoredBlueprint | None, newest: StoredBlueprint | None) -> bool:
        """Return whether clusters are to follow: an older version that is applied again takes none of them back."""
        if said.id in self._new:
            return self._new[said.id] == said.version
        return stored is not None and newest is not None and newest.version == stored.version

    # --- clusters

    def _cluster(self, change: Change, said: DeclaredCluster) -> None:
        row = self._session.get(Cluster, said.id)
        if row is None:
            change.action = "create"
            blueprint = self._find(said.blueprint, said.version)
            change.version = blueprint.version
            tenancy.tags_of_new(said.fields.get("tags", ()), blueprint.tags)
            stated = {"blueprint": said.blueprint, "version": blueprint.version, **said.fields}
            change.fields = [Field(name, None, value) for name, value in stated.items()]
            change.moves = [moves.of_new(creation(said), blueprint)]
            return
        if row.intent is Intent.GONE:
            raise Conflict(f"the cluster {said.id!r} was destroyed, and its id stays with its history; choose another")
        if row.blueprint_id != said.blueprint:
            told = f"the cluster is made of blueprint {row.blueprint_id!r}, not {said.blueprint!r}"
            raise Conflict(f"{told}; a cluster stays with its blueprint, so choose another id")
        change.fields = _fields(row, said)
        changed = {one.field: one.after for one in change.fields}
        if fixed := [name for name in _FIXED if name in changed]:
            raise Conflict(f"{fixed[0]} cannot be changed once a cluster is made; leave it out, or choose another id")
        change.version = said.version or row.blueprint_version
        if not change.fields:
            return
        change.action = "update"
        if "version" in changed:
            change.moves = [moves.of_rollout(self._session, row, self._find(row.blueprint_id, said.version), changed)]
        elif any(name in changed for name in BOUNDS):
            change.moves = [moves.of_bounds(self._session, row, changed)]
        if change.moves and change.moves[0].action == "refused":
            raise Conflict(str(change.moves[0].reason))


def _plain(text: str) -> Any:
    document = load(text)
    return document.root.plain() if document.root else {}


def sentence(exc: BrainError) -> str:
    """Return an error with its faults in one line."""
    faults = exc.faults if isinstance(exc, InvalidInput) else ()
    return "; ".join([str(exc), *(fault.message for fault in faults)])


def _fields(row: Cluster, said: DeclaredCluster) -> list[Field]:
    stated = dict(said.fields) | ({"version": said.version} if said.version else {})
    if "tags" in stated:
        stated["tags"] = tenancy.tags_declared(row.tags, stated["tags"])
    now = {name: row.blueprint_version if name == "version" else getattr(row, name) for name in stated}
    return [Field(name, now[name], value) for name, value in stated.items() if now[name] != value]


def creation(said: DeclaredCluster) -> CreateCluster:
    """Return the command that makes a declared cluster."""
    fields = {name: value for name, value in said.fields.items() if name not in ("paused", "name", "tags", "type")}
    kind = said.fields.get("type")
    return CreateCluster(
        blueprint_id=said.blueprint, version=said.version, id=said.id, name=said.fields.get("name", said.id),
        tags=tuple(said.fields.get("tags", ())), type=ClusterType(kind) if kind else None, **fields,
    )  # fmt: skip
