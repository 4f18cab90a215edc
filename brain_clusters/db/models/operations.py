"""What was asked for, decided and done."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Identity,
    Index,
    Text,
    case,
    cast,
    func,
    literal_column,
    text,
    type_coerce,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_JSON, NOW, Base, enum
from brain_clusters.domain.states import OperationKind, OperationStatus

_KIND = enum(OperationKind, "kind", native=False)


class Operation(Base):
    """One recorded lifecycle command with its outcome.

    The claim is a compare-and-set: pending (or running with an ended lease) -> running until ``lease_until``.
    acted_at: when the plan was carried out; from then on it waits for its agents, until ``deadline_at``. trace: the
    carrier of who asked for it, see ``tracing``.
    """

    __tablename__ = "operations"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    # Code of schema 0005 knows no rollouts, and reads these rows while it runs beside this one or in its place again.
    stored_kind: Mapped[OperationKind] = mapped_column("kind")
    rolls_out: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[OperationStatus] = mapped_column(server_default=OperationStatus.PENDING.value)
    cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    origin: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    generation: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    message_id: Mapped[str | None] = mapped_column(unique=True)
    lease_until: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]
    acted_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    trace: Mapped[dict[str, Any] | None]

    __table_args__ = (
        Index("ix_operations_cluster_id_created_at", "cluster_id", "created_at"),
        Index(
            "ix_operations_unfinished",
            "status",
            "published_at",
            postgresql_where=text("status IN ('pending', 'running')"),
        ),
        Index("ix_operations_finished_at", "finished_at"),
    )

    @hybrid_property
    def kind(self) -> OperationKind:
        """What is done. A rollout is stored as an update that rolls out."""
        return OperationKind.ROLLOUT if self.rolls_out else self.stored_kind

    @kind.inplace.setter
    def _set_kind(self, kind: OperationKind) -> None:
        self.rolls_out = kind is OperationKind.ROLLOUT
        self.stored_kind = OperationKind.UPDATE if self.rolls_out else kind

    @kind.inplace.expression
    @classmethod
    def _kind_in_sql(cls) -> ColumnElement[Any]:
        told = case((cls.rolls_out, literal_column("'rollout'")), else_=cast(cls.stored_kind, Text))
        return type_coerce(told, _KIND).label("kind")


class Event(Base):
    """One append-only line of history: who or what did it, why, with which inputs.

    txid: the transaction that wrote it. (txid, id) is its position; see ``services.feed``.
    """

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    operation_id: Mapped[uuid.UUID | None]
    agent_id: Mapped[str | None]
    kind: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    txid: Mapped[int] = mapped_column(BigInteger, server_default=text("pg_current_xact_id()::text::bigint"))

    __table_args__ = (
        Index("ix_events_cluster_id_id", "cluster_id", "id"),
        Index("ix_events_at", "at"),
        Index("ix_events_txid_id", "txid", "id"),
    )


class EventHorizon(Base):
    """The last position of all events that were deleted, in one row. Written by a trigger on ``events``."""

    __tablename__ = "event_horizon"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    txid: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("id = 1", name="ck_event_horizon_one_row"),)


class ScalingDecision(Base):
    """One tick's decision about one cluster that changed something, or that a gate held back. Never changed.

    action: scale, hibernate, reactivate, destroy or hold. before, after: agents by group; after is what was wanted
    where the action is hold. held: the gate and its sentence by group ("cluster" for all). inputs: everything that
    ``domain.scaling`` was given, so that the same decision can be made again.
    """

    __tablename__ = "scaling_decisions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    action: Mapped[str]
    reason: Mapped[str]
    before: Mapped[dict[str, int]]
    after: Mapped[dict[str, int]]
    held: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    inputs: Mapped[dict[str, Any]]
    operation_id: Mapped[uuid.UUID | None]

    __table_args__ = (
        Index("ix_scaling_decisions_cluster_id_id", "cluster_id", "id"),
        Index("ix_scaling_decisions_at", "at"),
    )


class IdempotencyKey(Base):
    """What a client's Idempotency-Key already made. fingerprint: SHA-256 of method, path and body.

    busy_until: the first request is still being answered (``Prefer: wait``); a retry meets 409 until then.
    """

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    kind: Mapped[str]
    subject_id: Mapped[str]
    busy_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)


class Tick(Base):
    """The last run of each periodic task, by the database's clock: two beats at once still make one tick."""

    __tablename__ = "ticks"

    name: Mapped[str] = mapped_column(primary_key=True)
    ran_at: Mapped[datetime]
