"""Who may call, who is signed in, and who did what."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_ARRAY, NOW, Base
from brain_clusters.domain.access import Role


class ApiKey(Base):
    """A key to the API. Of its secret there is only ``hash`` (SHA-256, in hexadecimal): it is shown once, when made.

    tags: the clusters it is for have one of them; empty is all. payloads: it may read what jobs are given and
    give back.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    role: Mapped[Role]
    payloads: Mapped[bool] = mapped_column(server_default=text("false"))
    tags: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_from: Mapped[str | None]


class SignIn(Base):
    """Someone signed in to the dashboard. id: SHA-256 of the cookie's secret; key_id: of the key it was opened with."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)
    address: Mapped[str | None]
    user_agent: Mapped[str | None]

    __table_args__ = (Index("ix_sessions_key_id", "key_id"), Index("ix_sessions_expires_at", "expires_at"))


class Audit(Base):
    """One line of the audit: who did what, from where, with which result. Never changed, kept by a rule of its own.

    action: the name of what was called, such as clusters.scale. cluster_id refers to no row: the line outlives it.
    status: of the HTTP answer. result: done, refused (401, 403), failed.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    actor: Mapped[str]
    key_id: Mapped[str | None]
    method: Mapped[str]
    address: Mapped[str | None]
    action: Mapped[str]
    verb: Mapped[str]
    path: Mapped[str]
    cluster_id: Mapped[str | None]
    operation_id: Mapped[uuid.UUID | None]
    status: Mapped[int]
    result: Mapped[str]
    detail: Mapped[str | None]

    # One besides the key's: each costs every change something, and who looks here has time.
    __table_args__ = (Index("ix_audit_cluster_id_id", "cluster_id", "id"),)
