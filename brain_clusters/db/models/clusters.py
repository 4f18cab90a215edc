"""Blueprints, the clusters made of them, and who does their work."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from brain_clusters.db.models.base import EMPTY_ARRAY, EMPTY_JSON, NOW, Base
from brain_clusters.domain.states import AgentRole, AgentStatus, ClusterStatus, ClusterType, Intent


class StoredBlueprint(Base):
    """A blueprint's text, immutable once stored under its (id, version)."""

    __tablename__ = "cluster_blueprints"

    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    blueprint_yaml: Mapped[str]
    manifest_path: Mapped[str | None]
    description: Mapped[str | None]
    author: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    instances_created: Mapped[int] = mapped_column(Integer, server_default="0")
    instances_active: Mapped[int] = mapped_column(Integer, server_default="0")
    success_rate: Mapped[float] = mapped_column(server_default="0")

    __table_args__ = (Index("ix_cluster_blueprints_created_at", "created_at"),)


class Cluster(Base):
    """One instance of a blueprint.

    intent, group_targets and target_workers are desired; status, current_workers, health_score and
    load_percentage are observed. generation counts accepted commands: an operation is done when the
    cluster has converged to its generation or a later one.
    asleep_backlog: jobs that waited when sleep was asked for; more than those wake the cluster.
    ready_since_wake: whether every agent was ready once since the last start, which tells spawning from scaling.
    unknown_ticks: looks in a row that could not tell what waits. wake_at: when a sleeping cluster has to start so
    that its next job with an ETA, or its schedule, finds it ready. budget_per_day: in place of its blueprint's.
    over_budget_on: the last day (UTC) on which it had spent its budget, which was over_budget_limit then;
    budget_waived_on: the day on which somebody woke it all the same. paused: the autoscaler leaves it alone.
    """

    __tablename__ = "clusters"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    type: Mapped[ClusterType]
    status: Mapped[ClusterStatus] = mapped_column(server_default=ClusterStatus.PLANNING.value)
    blueprint_id: Mapped[str]
    blueprint_version: Mapped[str]
    parent_cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id", ondelete="SET NULL"))
    min_workers: Mapped[int]
    max_workers: Mapped[int]
    current_workers: Mapped[int] = mapped_column(server_default="0")
    target_workers: Mapped[int]
    health_score: Mapped[float] = mapped_column(server_default="1")
    load_percentage: Mapped[float] = mapped_column(server_default="0")
    tasks_completed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    tasks_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]
    hibernated_at: Mapped[datetime | None]
    destroyed_at: Mapped[datetime | None]
    last_active: Mapped[datetime | None]
    description: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    config: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)

    intent: Mapped[Intent] = mapped_column(server_default=Intent.RUNNING.value)
    group_targets: Mapped[dict[str, int]] = mapped_column(server_default=EMPTY_JSON)
    generation: Mapped[int] = mapped_column(BigInteger, server_default="1")
    ready_since_wake: Mapped[bool] = mapped_column(server_default=text("false"))
    asleep_backlog: Mapped[int] = mapped_column(server_default="0")
    scaled_at: Mapped[datetime | None]
    unknown_ticks: Mapped[int] = mapped_column(server_default="0")
    wake_at: Mapped[datetime | None]
    budget_per_day: Mapped[float | None]
    over_budget_on: Mapped[date | None]
    over_budget_limit: Mapped[float | None]
    budget_waived_on: Mapped[date | None]
    paused: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        ForeignKeyConstraint(
            ["blueprint_id", "blueprint_version"], ["cluster_blueprints.id", "cluster_blueprints.version"]
        ),
        Index("ix_clusters_created_at_id", "created_at", "id"),
        Index("ix_clusters_status", "status"),
        Index("ix_clusters_type", "type"),
        Index("ix_clusters_name", "name"),
        Index("ix_clusters_tags", "tags", postgresql_using="gin"),
        Index("ix_clusters_blueprint_id_blueprint_version", "blueprint_id", "blueprint_version"),
        Index("ix_clusters_parent_cluster_id", "parent_cluster_id"),
    )


class Host(Base):
    """A host: it runs agents of one driver. cpus (cores), memory_bytes: what it has for them; None is unlimited.

    holder: which process is this host, as several may stand by for it; None once it was given up. seen_at: when that
    told of itself, by the database's clock; suspected_at: since when that is longer ago than its lease lasts.
    """

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    capacity: Mapped[int]
    pid: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)
    driver: Mapped[str] = mapped_column(server_default="process")
    cpus: Mapped[float | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    holder: Mapped[str | None]
    suspected_at: Mapped[datetime | None]


class Agent(Base):
    """One running member of a group, from its planning to its end.

    agent_id is the driver's name for it; handle is the driver's plain JSON (pid and start time for a process).
    reason: why it still is starting, as its engine or its host says. cpu (cores), memory_bytes: what it asks for.
    not_before delays the replacement of one that died at birth. claimed_at: when a host took it, from which on it
    costs. busy_seconds: how long it had at least one job so far, by its own count; busy_days: the same of its last days
    (UTC), each as [seconds while it took jobs, seconds while it drained, the sum over its slots]. retiring: somebody
    wants another in its place, and so its drain is not undone. trace: the carrier of what asked for it, see
    ``tracing``.
    """

    __tablename__ = "cluster_agents"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    agent_id: Mapped[str] = mapped_column(unique=True)
    role: Mapped[AgentRole]
    supervisor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("cluster_agents.id", ondelete="SET NULL"))
    capabilities: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    skills: Mapped[list[str]] = mapped_column(server_default=EMPTY_ARRAY)
    config: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    status: Mapped[AgentStatus] = mapped_column(server_default=AgentStatus.STARTING.value)
    health_score: Mapped[float] = mapped_column(server_default="1")
    tasks_completed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    tasks_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    avg_task_duration: Mapped[float] = mapped_column(server_default="0")
    last_error: Mapped[str | None]
    spawned_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_active: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]

    group_name: Mapped[str]
    driver: Mapped[str] = mapped_column(server_default="process")
    host_id: Mapped[str | None]
    handle: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    cpu: Mapped[float] = mapped_column(server_default="0")
    memory_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    blueprint_version: Mapped[str]
    ready_at: Mapped[datetime | None]
    draining_at: Mapped[datetime | None]
    retiring: Mapped[bool] = mapped_column(server_default=text("false"))
    not_before: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    busy_seconds: Mapped[float] = mapped_column(server_default="0")
    busy_days: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_JSON)
    trace: Mapped[dict[str, Any] | None]

    __table_args__ = (
        Index("ix_cluster_agents_cluster_id_status", "cluster_id", "status"),
        Index("ix_cluster_agents_status_host_id", "status", "host_id"),
        Index("ix_cluster_agents_supervisor_id", "supervisor_id"),
        Index("ix_cluster_agents_stopped_at", "stopped_at"),
    )
