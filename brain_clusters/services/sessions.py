"""Who is signed in to the dashboard: a cookie instead of a key. A session ends with its key, at once."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from brain_clusters.config import Settings
from brain_clusters.db.models import ApiKey, SignIn
from brain_clusters.domain.access import Identity
from brain_clusters.errors import NotFound
from brain_clusters.services import access
from brain_clusters.services.access import SESSION_NAME_DIGITS
from brain_clusters.services.control import Control

# When a session was used last is told to the minute, so that it costs no write with each request.
_SEEN = timedelta(minutes=1)
_LONGEST_AGENT = 300


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Someone who is signed in. id: names the session; expires_at: its end, at the latest."""

    id: str
    identity: Identity
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Shown:
    """A session as lists show it. key_name: None for a key of the environment."""

    row: SignIn
    key_name: str | None

    @property
    def id(self) -> str:
        """Return what names it."""
        return self.row.id[:SESSION_NAME_DIGITS]


def csrf_token(secret: str) -> str:
    """Return what a request that changes something has to send besides the cookie, whose secret is ``secret``."""
    return hmac.new(secret.encode("utf-8", "surrogateescape"), b"csrf", sha256).hexdigest()


def open_for(control: Control, identity: Identity, address: str | None, user_agent: str | None) -> tuple[str, SignedIn]:
    """Sign in who was identified by a key; return the secret for the cookie, which nobody can read again.

    What has ended is removed on this occasion.
    """
    assert identity.key_id is not None  # noqa: S101 - a key has an id
    secret, lasts = secrets.token_urlsafe(32), timedelta(seconds=control.settings.session_seconds)
    with control.database.transaction() as session:
        session.execute(delete(SignIn).where(SignIn.expires_at < func.now()))
        ends = session.scalar(select(ApiKey.expires_at).where(ApiKey.id == identity.key_id))
        row = SignIn(
            id=access.hashed(secret), key_id=identity.key_id, address=address,
            expires_at=func.now() + lasts if ends is None else func.least(func.now() + lasts, ends),
            user_agent=user_agent[:_LONGEST_AGENT].replace("\0", "") if user_agent else None,
        )  # fmt: skip
        session.add(row)
        session.flush()
        session.refresh(row)
        return secret, _signed_in(row, identity)


def identify(control: Control, secret: str) -> SignedIn | None:
    """Return whose cookie it is; None when the session or its key has ended. Raises TemporaryError."""
    with control.database.transaction() as session:
        query = select(SignIn, ApiKey, func.now()).outerjoin(ApiKey, ApiKey.id == SignIn.key_id)
        found = session.execute(query.where(SignIn.id == access.hashed(secret), SignIn.expires_at > func.now())).first()
        if found is None:
            return None
        row, key, now = found
        if key is None:
            identity = access.of_setting_id(control.settings, row.key_id)
        else:
            identity = access.of_row(key) if access.is_valid(key, now) else None
        if identity is None:
            return None
        if now - row.seen_at >= _SEEN:
            session.execute(update(SignIn).where(SignIn.id == row.id).values(seen_at=now))
        return _signed_in(row, identity)


def listing(session: Session, settings: Settings, caller: Identity) -> list[Shown]:
    """Return the sessions that ``caller`` may end, the newest first: its own, an admin's those of its keys, too."""
    query = select(SignIn, ApiKey).outerjoin(ApiKey, ApiKey.id == SignIn.key_id).where(*_of(caller))
    rows = session.execute(query.order_by(SignIn.created_at.desc(), SignIn.id)).all()
    now = session.execute(select(func.now())).scalar_one()
    return [
        Shown(row, key.name if key else None)
        for row, key in rows
        if (access.is_valid(key, now) if key else access.of_setting_id(settings, row.key_id) is not None)
    ]


def end(session: Session, caller: Identity, session_id: str) -> None:
    """End a session that ``caller`` may end; raise NotFound."""
    query = select(SignIn.id).outerjoin(ApiKey, ApiKey.id == SignIn.key_id).where(*_of(caller))
    found: Sequence[str] = session.scalars(query.where(SignIn.id.startswith(session_id, autoescape=True))).all()
    if len(session_id) != SESSION_NAME_DIGITS or not found:
        raise NotFound(f"there is no session {session_id!r}")
    session.execute(delete(SignIn).where(SignIn.id.in_(found)))


def _of(caller: Identity) -> list[ColumnElement[bool]]:
    """Return the condition that a session is the caller's to end, on sessions beside their keys."""
    alive = SignIn.expires_at > func.now()
    return [alive, or_(SignIn.key_id == caller.key_id, access.managed_by(caller))]


def _signed_in(row: SignIn, identity: Identity) -> SignedIn:
    name = row.id[:SESSION_NAME_DIGITS]
    return SignedIn(name, replace(identity, method="session", session_id=name, until=row.expires_at), row.expires_at)
