"""What is measured: metrics, alerts on them, and the usage that costs are told from."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_ARRAY, EMPTY_JSON, NOW, Base


class Metrics(Base):
    """One sample of a cluster's figures: usage and rates in %, times as their names say."""

    __tablename__ = "cluster_metrics"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    timestamp: Mapped[datetime] = mapped_column(server_default=NOW)
    cpu_usage: Mapped[float | None]
    memory_usage: Mapped[float | None]
    tasks_per_minute: Mapped[float]
    avg_response_time: Mapped[float | None]
    error_rate: Mapped[float]
    active_agents: Mapped[int]
    idle_agents: Mapped[int]
    busy_agents: Mapped[int]
    failed_agents: Mapped[int]
    queue_length: Mapped[int | None]
    queue_wait_time: Mapped[float | None]

    __table_args__ = (
        Index("ix_cluster_metrics_cluster_id_timestamp", "cluster_id", "timestamp"),
        Index("ix_cluster_metrics_timestamp", "timestamp"),
    )


class Alert(Base):
    """One alert of one cluster's blueprint that is pending, fires or fired. name: unique in the blueprint.

    state: pending (the condition holds, not yet for long enough), firing, clearing (it still fires; since then it
    could be over) or resolved. since: when that began. value: the metric when it was last looked at, up to its end.
    """

    __tablename__ = "alerts"

    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=NOW)
    fired_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    value: Mapped[float | None]


class Usage(Base):
    """What one agent came to on one day (UTC). The price of its hours follows from its group, see ``services.costs``.

    It outlives cluster and agent, so it refers to none of them. agent_id is "" for what no agent did. tags: the
    cluster's on that day. Of the states' seconds each second of an agent is in one; slot_seconds sums busy slots.
    saved_seconds: agents that were not there since the cluster slept, times seconds; asleep_warm_seconds: of a group
    that stayed in memory meanwhile. jobs_amount: the prices of finished jobs, but for unpriced_jobs, those that used
    what nobody counted. calls and tokens are NULL where nobody counted any; counters: what else handlers counted.
    """

    __tablename__ = "usage"

    day: Mapped[date] = mapped_column(primary_key=True)
    cluster_id: Mapped[str] = mapped_column(primary_key=True)
    group_name: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str] = mapped_column(primary_key=True)
    blueprint_id: Mapped[str]
    blueprint_version: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    starting_seconds: Mapped[float] = mapped_column(server_default="0")
    idle_seconds: Mapped[float] = mapped_column(server_default="0")
    busy_seconds: Mapped[float] = mapped_column(server_default="0")
    draining_seconds: Mapped[float] = mapped_column(server_default="0")
    slot_seconds: Mapped[float] = mapped_column(server_default="0")
    saved_seconds: Mapped[float] = mapped_column(server_default="0")
    asleep_warm_seconds: Mapped[float] = mapped_column(server_default="0")
    jobs_succeeded: Mapped[int] = mapped_column(BigInteger, server_default="0")
    jobs_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    unpriced_jobs: Mapped[int] = mapped_column(BigInteger, server_default="0")
    jobs_amount: Mapped[Decimal] = mapped_column(Numeric, server_default="0")
    calls: Mapped[int | None] = mapped_column(BigInteger)
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    counters: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)

    __table_args__ = (Index("ix_usage_cluster_id_day", "cluster_id", "day"),)


class TallyRow(Base):
    """A sum that only grows, for monitors. cluster_id and group_name are "" where it is of none.

    label: the values of its other labels, with blanks in between; bucket: of a histogram, by its upper bound in
    seconds, or "sum".
    """

    __tablename__ = "tallies"

    cluster_id: Mapped[str] = mapped_column(primary_key=True)
    group_name: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class TallyEntry(Base):
    """What was counted since the sums were made: appended without waiting for anybody, and folded into them."""

    __tablename__ = "tally_entries"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    cluster_id: Mapped[str]
    group_name: Mapped[str]
    metric: Mapped[str]
    label: Mapped[str]
    bucket: Mapped[str]
    value: Mapped[float]
