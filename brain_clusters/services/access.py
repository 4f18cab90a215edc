"""Keys: made, found and revoked. Of a key's secret nothing is kept but its hash; it is shown once."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from sqlalchemy import ColumnElement, Text, and_, cast, false, func, select, text, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from brain_clusters.config import Settings
from brain_clusters.db.models import ApiKey, SignIn
from brain_clusters.domain.access import Identity, Role
from brain_clusters.errors import NotFound
from brain_clusters.services.control import Control

_FORM = re.compile(r"brain_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)
# When a key was used last is told to the minute, so that it costs no write with each request.
_USED = timedelta(minutes=1)
# How the ids of keys begin that the environment gives.
FIXED = "env-"
# So many digits of a session's hash name it: for lists and for ending it, and of no use to sign in.
SESSION_NAME_DIGITS = 16
_FIRST_LOCK = 0x62_72_61_69_6E_6B


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key is to be. name: for people; expires_at: None is never."""

    name: str
    role: Role
    payloads: bool = False
    tags: Sequence[str] = ()
    expires_at: datetime | None = None


def make(session: Session, new: NewKey, by: str) -> tuple[ApiKey, str]:
    """Store a key; return its row and its text, which nobody can read again."""
    key_id = secrets.token_hex(6)
    shown = f"brain_{key_id}_{secrets.token_urlsafe(32)}"
    row = ApiKey(
        id=key_id, name=new.name, hash=hashed(shown), role=new.role, payloads=new.payloads, tags=list(new.tags),
        created_by=by, expires_at=new.expires_at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, shown


def revoke(session: Session, key_id: str) -> ApiKey:
    """End a key for good, now; raise NotFound. Repeated, it changes nothing."""
    row = session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise NotFound(f"there is no key {key_id!r}")
    if row.revoked_at is None:
        row.revoked_at = session.scalar(select(func.now()))
    return row


def identify(control: Control, shown: str, address: str | None) -> Identity | None:
    """Return whose key ``shown`` is; None for one that is unknown, ended or revoked. Raises TemporaryError.

    address: where it came from, noted as its last use.
    """
    fixed = of_settings(control.settings, shown)
    if fixed is not None:
        return fixed
    found = _FORM.fullmatch(shown)
    if found is None:
        return None
    with control.database.transaction() as session:
        row = session.get(ApiKey, found["id"])
        if row is None or not hmac.compare_digest(row.hash, hashed(shown)):
            return None
        return _used(session, row, address)


def is_made(shown: str) -> bool:
    """Return whether ``shown`` has the form of keys of our making, whose secret has 256 bits."""
    return _FORM.fullmatch(shown) is not None


def of_settings(settings: Settings, shown: str) -> Identity | None:
    """Return the admin whose key of BRAIN_API_KEYS ``shown`` is, else None."""
    place = place_among(settings.api_keys, shown)
    return None if place is None else fixed(settings)[place]


def place_among(keys: Sequence[str], shown: str) -> int | None:
    """Return which of ``keys`` was shown, the first of equal ones; None when none was."""
    sent = shown.encode("utf-8", "surrogateescape")
    # Every key is compared, in constant time: the answer's delay tells nothing about them.
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    return matches.index(True) if any(matches) else None


def of_setting_id(settings: Settings, key_id: str) -> Identity | None:
    """Return the admin whose key of BRAIN_API_KEYS has this id; None when it is not set any more."""
    return next((one for one in fixed(settings) if one.key_id == key_id), None)


def fixed(settings: Settings) -> list[Identity]:
    """Return the admins that BRAIN_API_KEYS makes, in its order."""
    named = ["BRAIN_API_KEYS", *(f"BRAIN_API_KEYS ({place})" for place in range(2, len(settings.api_keys) + 1))]
    return [
        Identity(name=name, role=Role.ADMIN, payloads=True, key_id=f"{FIXED}{hashed(key)[:12]}")
        for name, key in zip(named, settings.api_keys, strict=False)
    ]


def _used(session: Session, row: ApiKey, address: str | None) -> Identity | None:
    """Return the identity of a key that is valid now, and note its use, if a minute has passed since the last."""
    now: datetime = session.execute(select(func.now())).scalar_one()
    if not is_valid(row, now):
        return None
    if row.last_used_at is None or now - row.last_used_at >= _USED or row.last_used_from != address:
        session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=now, last_used_from=address))
    return of_row(row)


def still_good(session: Session, callers: Collection[Identity]) -> set[Identity]:
    """Return those of ``callers`` whose keys and sessions are still good; what is not stored is, until its end."""
    ids = {caller.key_id for caller in callers if _is_stored(caller)}
    opened = {caller.session_id for caller in callers if caller.session_id is not None}
    valid = ApiKey.revoked_at.is_(None), ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now())
    good = set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(ids), *valid))) if ids else set()
    alive = {caller for caller in callers if not _is_stored(caller) or caller.key_id in good}
    if opened:
        names = func.left(SignIn.id, SESSION_NAME_DIGITS)
        query = select(names).where(names.in_(opened), SignIn.expires_at > func.now())
        ended = opened - set(session.scalars(query))
        alive = {caller for caller in alive if caller.session_id not in ended}
    now: datetime = session.execute(select(func.now())).scalar_one()
    return {caller for caller in alive if caller.until is None or caller.until > now}


def _is_stored(caller: Identity) -> bool:
    return caller.key_id is not None and caller.method != "token" and not caller.key_id.startswith(FIXED)


def is_valid(row: ApiKey, now: datetime) -> bool:
    """Return whether a key lets somebody in at ``now``."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def managed_by(caller: Identity) -> ColumnElement[bool]:
    """Return the condition that a key is one that ``caller`` manages: an admin's, all keys or those within its tags."""
    if caller.role is not Role.ADMIN:
        return false()
    if caller.sees_all:
        return true()
    return and_(ApiKey.tags != cast([], ARRAY(Text)), ApiKey.tags.contained_by(cast(list(caller.tags), ARRAY(Text))))


def of_row(row: ApiKey) -> Identity:
    """Return the identity that a key gives."""
    return Identity(name=row.name, role=row.role, payloads=row.payloads, tags=tuple(row.tags), key_id=row.id)


def make_first(control: Control) -> Path | None:
    """Make an admin key where there is none yet, and write it to ``BRAIN_HOME/admin.key``; return that path.

    None where keys are set by BRAIN_API_KEYS, or none are needed, or there is a valid key of an admin that sees all.
    Several may call it at once: one makes the key.
    """
    settings = control.settings
    if settings.api_keys or settings.insecure_dev:
        return None
    with control.database.transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _FIRST_LOCK})
        usable = select(ApiKey.id).where(
            ApiKey.role == Role.ADMIN, ApiKey.tags == cast([], ARRAY(Text)), ApiKey.revoked_at.is_(None),
            ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now()),
        )  # fmt: skip
        if session.scalar(usable.limit(1)) is not None:
            return None
        _, shown = make(session, NewKey(name="first admin", role=Role.ADMIN, payloads=True), "the first start")
        # Before the commit: a key that nobody has is worse than a file whose key is not there.
        return _write(settings.admin_key_path, shown)


def _write(path: Path, shown: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{shown}\n")
    draft.replace(path)
    return path


def hashed(shown: str) -> str:
    """Return what is kept of a secret, in hexadecimal. Ours have 256 bits, so that no salt or slow hash is needed."""
    return sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()
