"""Managing keys: an admin makes, lists, renews and revokes them, within its own rights and tags."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import ApiKey
from brain_clusters.domain.access import Identity
from brain_clusters.errors import Conflict, Fault, InvalidInput, NotFound
from brain_clusters.services import access, audit
from brain_clusters.services.access import NewKey
from brain_clusters.services.audit import Line
from brain_clusters.services.control import Control

# Keys are few: what is beyond the newest so many is told by the total.
MOST_SHOWN = 1000


def listing(session: Session, caller: Identity, *, ended: bool) -> tuple[Sequence[ApiKey], int]:
    """Return the newest keys that ``caller`` manages, and how many there are. ended: those that are over, too."""
    conditions = [access.managed_by(caller)]
    if not ended:
        conditions += [ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())]
    query = select(ApiKey).where(*conditions).order_by(ApiKey.created_at.desc(), ApiKey.id).limit(MOST_SHOWN)
    total = session.scalar(select(func.count()).select_from(ApiKey).where(*conditions)) or 0
    return session.scalars(query).all(), total


def create(session: Session, caller: Identity, new: NewKey) -> tuple[ApiKey, str]:
    """Make a key for ``caller``; return its row and its text. Raises InvalidInput for more than the caller may."""
    faults = _beyond(caller, new)
    if faults:
        raise InvalidInput("nobody can make a key that may more than the own one", faults)
    row, shown = access.make(session, new, caller.name)
    audit.note(session, detail=f"key {row.id} {row.name!r}, {row.role}, tags {list(row.tags)}")
    return row, shown


def create_directly(control: Control, new: NewKey, by: str) -> tuple[ApiKey, str]:
    """Make a key without one: for who has the database's credentials, and lost every key."""
    with control.database.transaction() as session:
        row, shown = access.make(session, new, by)
        with audit.of(Line("keys.create", "DIRECT", "", None)):
            audit.note(session, detail=f"key {row.id} {row.name!r}, {row.role}, by {by}")
        return row, shown


def _beyond(caller: Identity, wanted: NewKey) -> list[Fault]:
    """Return what a key may that ``caller`` may not."""
    faults = []
    if not caller.role.covers(wanted.role):
        faults.append(Fault("/role", f"you have the role {caller.role}"))
    if wanted.payloads and not caller.payloads:
        faults.append(Fault("/payloads", "you may not read payloads yourself"))
    if not caller.sees_all and (not wanted.tags or not set(wanted.tags) <= set(caller.tags)):
        listed = ", ".join(repr(tag) for tag in caller.tags)
        faults.append(Fault("/tags", f"give the key one of your tags, or several: {listed}"))
    return faults


def revoke(session: Session, caller: Identity, key_id: str) -> ApiKey:
    """End a key that ``caller`` manages for good, now, and its sessions with it. Raises NotFound."""
    named = _managed(session, caller, key_id)
    audit.note(session, detail=f"key {named.id} {named.name!r}")
    return access.revoke(session, key_id)


def rotate(
    session: Session, caller: Identity, key_id: str, overlap: timedelta, expires_at: datetime | None
) -> tuple[ApiKey, ApiKey, str]:
    """Make a key in place of another, which ends after ``overlap``; return the old row, the new one and its text.

    It lasts as long as the old one was to last, unless ``expires_at`` says otherwise. Raises NotFound, Conflict for a
    key that is over, and InvalidInput for one that may more than the caller.
    """
    old = _managed(session, caller, key_id)
    now: datetime = session.execute(select(func.now())).scalar_one()
    if not access.is_valid(old, now):
        raise Conflict("this key is over; make a new one")
    if expires_at is None and old.expires_at is not None:
        expires_at = now + (old.expires_at - old.created_at)
    same = NewKey(name=old.name, role=old.role, payloads=old.payloads, tags=old.tags, expires_at=expires_at)
    made, shown = create(session, caller, same)
    old.expires_at = min(now + overlap, old.expires_at or now + overlap)
    return old, made, shown


def _managed(session: Session, caller: Identity, key_id: str) -> ApiKey:
    if key_id.startswith(access.FIXED) and caller.sees_all:
        raise Conflict("this key is of BRAIN_API_KEYS; it ends when it is taken out there, and the API starts anew")
    query = select(ApiKey).where(ApiKey.id == key_id, access.managed_by(caller))
    found = session.scalars(query.with_for_update()).first()
    if found is None:
        raise NotFound(f"there is no key {key_id!r}")
    return found
