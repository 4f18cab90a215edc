"""The units of work."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_JSON, NOW, Base
from brain_clusters.domain.states import JobStatus


class Job(Base):
    """One unit of work that was accepted here or reported by an agent. The payload is dropped when it is finished.

    eta: not to be begun before; until shortly before it, the job waits here and not in Redis. options: what is stated
    of ``domain.jobs.JobOptions``. parent_id, root_id: the place in a tree of delegated jobs. error_key: what failed
    jobs are grouped by: the error's type, and its message without what differs from job to job. usage: tokens, calls
    and what else the handler counted, and amount, in the currency of the installation. Failed jobs keep their payload.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    group_name: Mapped[str]
    status: Mapped[JobStatus] = mapped_column(server_default=JobStatus.QUEUED.value)
    payload: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    agent_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    eta: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    priority: Mapped[str] = mapped_column(server_default="normal")
    options: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    expires_at: Mapped[datetime | None]
    parent_id: Mapped[str | None]
    root_id: Mapped[str | None]
    error_key: Mapped[str | None]
    usage: Mapped[dict[str, Any] | None]

    __table_args__ = (
        Index(
            "ix_jobs_dead_letters",
            "cluster_id",
            "error_key",
            "finished_at",
            postgresql_where=text("error_key IS NOT NULL"),
        ),
        Index("ix_jobs_root_id", "root_id", postgresql_where=text("root_id IS NOT NULL")),
        Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index(
            "ix_jobs_eta",
            "eta",
            postgresql_where=text("status = 'queued' AND published_at IS NULL AND eta IS NOT NULL"),
        ),
        Index("ix_jobs_cluster_id_created_at_id", "cluster_id", "created_at", "id"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_unfinished", "status", "published_at", postgresql_where=text("status IN ('queued', 'running')")),
        Index("ix_jobs_finished_at", "finished_at"),
    )
