"""The tables. Alembic's migrations are their history; autogenerate finds no difference between the two.

All times are timezone-aware UTC. Enum columns are native PostgreSQL enums with lower-case values.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from brain_clusters.domain.states import (
    AgentRole,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    Intent,
    JobStatus,
    OperationKind,
    OperationStatus,
)


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """Return ``kind`` as the native enum ``name``, stored by value."""
    return Enum(kind, name=name, values_callable=lambda members: [member.value for member in members])


class Base(DeclarativeBase):
    """The root of the models, with names for constraints that migrations can count on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: DateTime(timezone=True),
        date: Date,
        str: Text,
        dict[str, Any]: JSONB,
        dict[str, int]: JSONB,
        list[str]: ARRAY(Text),
        uuid.UUID: UUID(as_uuid=True),
        float: Float(53),
        ClusterType: _enum(ClusterType, "clustertype"),
        ClusterStatus: _enum(ClusterStatus, "clusterstatus"),
        AgentRole: _enum(AgentRole, "agentrole"),
        AgentStatus: _enum(AgentStatus, "agentstatus"),
        OperationKind: _enum(OperationKind, "operationkind"),
        OperationStatus: _enum(OperationStatus, "operationstatus"),
        JobStatus: _enum(JobStatus, "jobstatus"),
        Intent: _enum(Intent, "clusterintent"),
    }


_EMPTY_JSON = text("'{}'::jsonb")
_EMPTY_ARRAY = text("'{}'::text[]")
_NOW = func.now()


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
    tags: Mapped[list[str]] = mapped_column(server_default=_EMPTY_ARRAY)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
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
    budget_waived_on: the day on which somebody woke it all the same.
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
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    started_at: Mapped[datetime | None]
    hibernated_at: Mapped[datetime | None]
    destroyed_at: Mapped[datetime | None]
    last_active: Mapped[datetime | None]
    description: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=_EMPTY_ARRAY)
    config: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)

    intent: Mapped[Intent] = mapped_column(server_default=Intent.RUNNING.value)
    group_targets: Mapped[dict[str, int]] = mapped_column(server_default=_EMPTY_JSON)
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
    """A host process that runs process-driver agents."""

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    capacity: Mapped[int]
    pid: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Agent(Base):
    """One running member of a group, from its planning to its end.

    agent_id is the driver's name for it; handle is the driver's plain JSON (pid and start time for a process).
    not_before delays the replacement of one that died at birth. claimed_at: when a host took it, from which on it
    costs. busy_seconds: how long it had at least one job so far, by its own count; busy_days: the same of its last days
    (UTC), each as [seconds while it took jobs, seconds while it drained, the sum over its slots].
    """

    __tablename__ = "cluster_agents"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    agent_id: Mapped[str] = mapped_column(unique=True)
    role: Mapped[AgentRole]
    supervisor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("cluster_agents.id", ondelete="SET NULL"))
    capabilities: Mapped[list[str]] = mapped_column(server_default=_EMPTY_ARRAY)
    skills: Mapped[list[str]] = mapped_column(server_default=_EMPTY_ARRAY)
    config: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)
    status: Mapped[AgentStatus] = mapped_column(server_default=AgentStatus.STARTING.value)
    health_score: Mapped[float] = mapped_column(server_default="1")
    tasks_completed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    tasks_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    avg_task_duration: Mapped[float] = mapped_column(server_default="0")
    last_error: Mapped[str | None]
    spawned_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    last_active: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]

    group_name: Mapped[str]
    driver: Mapped[str] = mapped_column(server_default="process")
    host_id: Mapped[str | None]
    handle: Mapped[dict[str, Any] | None]
    blueprint_version: Mapped[str]
    ready_at: Mapped[datetime | None]
    draining_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    busy_seconds: Mapped[float] = mapped_column(server_default="0")
    busy_days: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)

    __table_args__ = (
        Index("ix_cluster_agents_cluster_id_status", "cluster_id", "status"),
        Index("ix_cluster_agents_status_host_id", "status", "host_id"),
        Index("ix_cluster_agents_supervisor_id", "supervisor_id"),
        Index("ix_cluster_agents_stopped_at", "stopped_at"),
    )


class Metrics(Base):
    """One sample of a cluster's figures: usage and rates in %, times as their names say."""

    __tablename__ = "cluster_metrics"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    timestamp: Mapped[datetime] = mapped_column(server_default=_NOW)
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


class Operation(Base):
    """One recorded lifecycle command with its outcome.

    The claim is a compare-and-set: pending (or running with an ended lease) -> running until ``lease_until``.
    acted_at: when the plan was carried out; from then on it waits for its agents, until ``deadline_at``.
    """

    __tablename__ = "operations"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    kind: Mapped[OperationKind]
    status: Mapped[OperationStatus] = mapped_column(server_default=OperationStatus.PENDING.value)
    cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    origin: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    generation: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    message_id: Mapped[str | None] = mapped_column(unique=True)
    lease_until: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    started_at: Mapped[datetime | None]
    acted_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

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


class Event(Base):
    """One append-only line of history: who or what did it, why, with which inputs."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"))
    operation_id: Mapped[uuid.UUID | None]
    agent_id: Mapped[str | None]
    kind: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)

    __table_args__ = (Index("ix_events_cluster_id_id", "cluster_id", "id"), Index("ix_events_at", "at"))


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
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    eta: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    priority: Mapped[str] = mapped_column(server_default="normal")
    options: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)
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
        Index("ix_jobs_unfinished", "status", "published_at", postgresql_where=text("status IN ('queued', 'running')")),
        Index("ix_jobs_finished_at", "finished_at"),
    )


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
    held: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)
    inputs: Mapped[dict[str, Any]]
    operation_id: Mapped[uuid.UUID | None]

    __table_args__ = (
        Index("ix_scaling_decisions_cluster_id_id", "cluster_id", "id"),
        Index("ix_scaling_decisions_at", "at"),
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
    since: Mapped[datetime] = mapped_column(server_default=_NOW)
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
    tags: Mapped[list[str]] = mapped_column(server_default=_EMPTY_ARRAY)
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
    counters: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY_JSON)

    __table_args__ = (Index("ix_usage_cluster_id_day", "cluster_id", "day"),)


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
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)

    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)


class Tick(Base):
    """The last run of each periodic task, by the database's clock: two beats at once still make one tick."""

    __tablename__ = "ticks"

    name: Mapped[str] = mapped_column(primary_key=True)
    ran_at: Mapped[datetime]
