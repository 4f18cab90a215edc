"""Storing and finding blueprints. (id, version) is immutable once stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.db.models import Cluster, StoredBlueprint
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import Intent
from brain_clusters.errors import Conflict, NotFound
from brain_clusters.services import etags
from brain_clusters.services.control import Control
from brain_clusters.services.paging import Page, page

# A stored version never changes, so its parsed form is kept, by database, without reading the text again.
_KNOWN: WeakKeyDictionary[object, dict[tuple[str, str], Blueprint]] = WeakKeyDictionary()
_KNOWN_LIMIT = 10_000
# Any constant serves that differs from the seeds of other locks on text.
_LOCK_SEED = 2


def parsed(session: Session, blueprint_id: str, version: str) -> Blueprint:
    """Return a stored blueprint as data; raise NotFound."""
    known = _KNOWN.setdefault(session.get_bind(), {})
    found = known.get((blueprint_id, version))
    if found is not None:
        return found
    stored = session.get(StoredBlueprint, (blueprint_id, version))
    if stored is None:
        raise NotFound(f"there is no blueprint {blueprint_id!r} in version {version!r}")
    if len(known) >= _KNOWN_LIMIT:
        known.clear()
    found = parse_blueprint(stored.blueprint_yaml, source=f"blueprint {blueprint_id} {version}", stored=True)
    known[blueprint_id, version] = found
    return found


def newest(session: Session, blueprint_id: str) -> StoredBlueprint:
    """Return the newest active version of a blueprint; raise NotFound that names what there is."""
    found = session.scalars(
        select(StoredBlueprint)
        .where(StoredBlueprint.id == blueprint_id, StoredBlueprint.is_active)
        .order_by(StoredBlueprint.created_at.desc(), StoredBlueprint.version.desc())
        .limit(1)
    ).first()
    if found is None:
        raise NotFound(f"there is no blueprint {blueprint_id!r}; GET /api/blueprints lists those there are")
    return found


def stored(session: Session, blueprint_id: str, version: str | None = None) -> StoredBlueprint:
    """Return an active version of a blueprint, the newest without ``version``; raise NotFound that names what is."""
    if version is None:
        return newest(session, blueprint_id)
    known = versions(session, blueprint_id)
    found = next((row for row in known if row.version == version), None)
    if found is None:
        told = ", ".join(row.version for row in known[:20])
        raise NotFound(f"there is no version {version!r} of blueprint {blueprint_id!r}; there are {told}")
    return found


def store(
    control: Control, text: str, *, source: str = "blueprint", manifest_path: str | None = None,
    expected_id: str | None = None, seen: Sequence[str] = (),
) -> tuple[StoredBlueprint, bool]:  # fmt: skip
    """Validate and store a blueprint; return it and whether it is new.

    The same text again changes nothing. Raises InvalidInput with every fault, and Conflict when this version is
    stored with another text, or when the text is of another blueprint than ``expected_id``, and Outdated when it is new
    and the blueprint has none of the tags ``seen``.
    """
    blueprint = parse_blueprint(text, source=source)
    if expected_id is not None and blueprint.id != expected_id:
        raise Conflict(f"the text is of blueprint {blueprint.id!r}, not of {expected_id!r}")
    with control.database.transaction() as session:
        active = _locked(session, blueprint.id)
        if all(row.blueprint_yaml != text for row in active):
            etags.guard(etags.of_blueprint(active), seen, f"the blueprint {blueprint.id!r}")
        new = session.execute(
            insert(StoredBlueprint)
            .values(
                id=blueprint.id,
                version=blueprint.version,
                name=blueprint.name,
                blueprint_yaml=text,
                manifest_path=manifest_path,
                description=blueprint.description,
                author=blueprint.author,
                tags=list(blueprint.tags),
            )
            .on_conflict_do_nothing()
            .returning(StoredBlueprint.id)
        ).first()
        stored = session.get_one(StoredBlueprint, (blueprint.id, blueprint.version))
        if stored.blueprint_yaml != text:
            raise Conflict(
                f"blueprint {blueprint.id!r} version {blueprint.version!r} is stored with another text, and a "
                "stored version never changes; give metadata.version a new value"
            )
        if not stored.is_active:
            stored.is_active, stored.updated_at = True, func.now()
            new = (stored.id,)  # type: ignore[assignment]
        session.flush()
        session.refresh(stored)
        return stored, new is not None


def store_folder(control: Control, folder: Path) -> int:
    """Store every ``*.yaml`` of ``folder``; return how many were new. A version stored with another text stays."""
    new = 0
    for path in sorted(folder.glob("*.yaml")):
        try:
            _, added = store(control, path.read_text(), source=str(path), manifest_path=str(path))
        except Conflict:
            continue  # edited without a new version: what is stored, and runs, counts
        new += added
    return new


def versions(session: Session, blueprint_id: str) -> Sequence[StoredBlueprint]:
    """Return all active versions of a blueprint, newest first; raise NotFound when there is none."""
    newest(session, blueprint_id)
    return session.scalars(
        select(StoredBlueprint)
        .where(StoredBlueprint.id == blueprint_id, StoredBlueprint.is_active)
        .order_by(StoredBlueprint.created_at.desc(), StoredBlueprint.version.desc())
    ).all()


def listing(session: Session, *, limit: int, cursor: str | None) -> Page[StoredBlueprint]:
    """Return a page of blueprints by id, each in its newest active version."""
    newest = (
        select(StoredBlueprint.id, StoredBlueprint.version)
        .where(StoredBlueprint.is_active)
        .ext(distinct_on(StoredBlueprint.id))
        .order_by(StoredBlueprint.id, StoredBlueprint.created_at.desc(), StoredBlueprint.version.desc())
        .subquery()
    )
    query = select(StoredBlueprint).where(
        StoredBlueprint.id == newest.c.id, StoredBlueprint.version == newest.c.version
    )
    return page(
        session, query, (StoredBlueprint.id,), lambda row: (row.id,), limit=limit, cursor=cursor, descending=False
    )


def version_counts(session: Session, blueprint_ids: Sequence[str]) -> dict[str, int]:
    """Return how many active versions each blueprint has."""
    active = StoredBlueprint.id.in_(blueprint_ids), StoredBlueprint.is_active
    rows = session.execute(select(StoredBlueprint.id, func.count()).where(*active).group_by(StoredBlueprint.id)).all()
    return {row[0]: row[1] for row in rows}


def retire(control: Control, blueprint_id: str, *, seen: Sequence[str] = ()) -> None:
    """Take a blueprint out of use; its rows stay for history. Raises Conflict while clusters were made from it.

    Raises Outdated when it has none of the tags ``seen``.
    """
    with control.database.transaction() as session:
        newest(session, blueprint_id)
        stored = _locked(session, blueprint_id)
        etags.guard(etags.of_blueprint(stored), seen, f"the blueprint {blueprint_id!r}")
        in_use = session.scalars(
            select(Cluster.id).where(Cluster.blueprint_id == blueprint_id, Cluster.intent != Intent.GONE).limit(5)
        ).all()
        if in_use:
            raise Conflict(f"clusters run from blueprint {blueprint_id!r}: {', '.join(in_use)}; destroy them first")
        for version in stored:
            version.is_active, version.updated_at = False, func.now()


def _locked(session: Session, blueprint_id: str) -> Sequence[StoredBlueprint]:
    """Return the active versions of a blueprint, which nobody adds to or retires until this transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(blueprint_id, _LOCK_SEED))))
    active = select(StoredBlueprint).where(StoredBlueprint.id == blueprint_id, StoredBlueprint.is_active)
    return session.scalars(active).all()
