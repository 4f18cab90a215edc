"""The rollouts of clusters: each once a row, which stays as their history."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_JSON, Base
from brain_clusters.domain.states import RolloutStatus


class Rollout(Base):
    """One way of a cluster from one version of its blueprint to another. At most one of a cluster is under way.

    policy: how, as ``domain.specs.RolloutPolicy``. before: the bounds and counts that the cluster had, to go back to.
    progress: agents by what they are, as last seen. progress_at: when they were last better than before; pending_since:
    since when a new agent is to prove itself, None while at most old ones are waited for.
    stranded: by group how many unfinished jobs a group without a place in the new version left. operation_id: of its
    command.
    """

    __tablename__ = "rollouts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    status: Mapped[RolloutStatus] = mapped_column(server_default=RolloutStatus.RUNNING.value)
    from_version: Mapped[str]
    to_version: Mapped[str]
    undo: Mapped[bool] = mapped_column(server_default=text("false"))
    policy: Mapped[dict[str, Any]]
    before: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, int]] = mapped_column(server_default=EMPTY_JSON)
    stranded: Mapped[dict[str, int]] = mapped_column(server_default=EMPTY_JSON)
    reason: Mapped[str]
    origin: Mapped[str]
    operation_id: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    progress_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    pending_since: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_rollouts_cluster_id_created_at", "cluster_id", "created_at"),
        Index(
            "uq_rollouts_cluster_id_under_way",
            "cluster_id",
            unique=True,
            postgresql_where=text("status IN ('running', 'paused', 'reverting')"),
        ),
    )
