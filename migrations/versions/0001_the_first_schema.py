"""The first schema

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cluster_blueprints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("blueprint_yaml", sa.Text(), nullable=False),
        sa.Column("manifest_path", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("instances_created", sa.Integer(), server_default="0", nullable=False),
        sa.Column("instances_active", sa.Integer(), server_default="0", nullable=False),
        sa.Column("success_rate", sa.Float(precision=53), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_cluster_blueprints")),
    )
    op.create_index("ix_cluster_blueprints_created_at", "cluster_blueprints", ["created_at"], unique=False)
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("busy_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "ticks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ticks")),
    )
    op.create_table(
        "clusters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "type",
            sa.Enum("department", "project", "temporary", "persistent", "campaign", "team", name="clustertype"),
            nullable=False,
        ),
        sa.Column(
            "status",
            sa.Enum(
                "planning",
                "spawning",
                "active",
                "scaling_up",
                "scaling_down",
                "hibernated",
                "destroying",
                "destroyed",
                name="clusterstatus",
            ),
            server_default="planning",
            nullable=False,
        ),
        sa.Column("blueprint_id", sa.Text(), nullable=False),
        sa.Column("blueprint_version", sa.Text(), nullable=False),
        sa.Column("parent_cluster_id", sa.Text(), nullable=True),
        sa.Column("min_workers", sa.Integer(), nullable=False),
        sa.Column("max_workers", sa.Integer(), nullable=False),
        sa.Column("current_workers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("target_workers", sa.Integer(), nullable=False),
        sa.Column("health_score", sa.Float(precision=53), server_default="1", nullable=False),
        sa.Column("load_percentage", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("tasks_completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tasks_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hibernated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_active", sa.DateTime(timezone=True), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column(
            "config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "intent",
            sa.Enum("running", "asleep", "gone", name="clusterintent"),
            server_default="running",
            nullable=False,
        ),
        sa.Column(
            "group_targets",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("ready_since_wake", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("asleep_backlog", sa.Integer(), server_default="0", nullable=False),
        sa.Column("scaled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["blueprint_id", "blueprint_version"],
            ["cluster_blueprints.id", "cluster_blueprints.version"],
            name=op.f("fk_clusters_blueprint_id_blueprint_version_cluster_blueprints"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_cluster_id"],
            ["clusters.id"],
            name=op.f("fk_clusters_parent_cluster_id_clusters"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clusters")),
    )
    op.create_index(
        "ix_clusters_blueprint_id_blueprint_version", "clusters", ["blueprint_id", "blueprint_version"], unique=False
    )
    op.create_index("ix_clusters_created_at_id", "clusters", ["created_at", "id"], unique=False)
    op.create_index("ix_clusters_name", "clusters", ["name"], unique=False)
    op.create_index("ix_clusters_parent_cluster_id", "clusters", ["parent_cluster_id"], unique=False)
    op.create_index("ix_clusters_status", "clusters", ["status"], unique=False)
    op.create_index("ix_clusters_tags", "clusters", ["tags"], unique=False, postgresql_using="gin")
    op.create_index("ix_clusters_type", "clusters", ["type"], unique=False)
    op.create_table(
        "cluster_agents",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Enum("supervisor", "lead", "specialist", "worker", name="agentrole"), nullable=False),
        sa.Column("supervisor_id", sa.UUID(), nullable=True),
        sa.Column("capabilities", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("skills", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column(
            "config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "status",
            sa.Enum("starting", "idle", "busy", "draining", "stopped", "failed", name="agentstatus"),
            server_default="starting",
            nullable=False,
        ),
        sa.Column("health_score", sa.Float(precision=53), server_default="1", nullable=False),
        sa.Column("tasks_completed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tasks_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("avg_task_duration", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("spawned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_active", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), server_default="process", nullable=False),
        sa.Column("host_id", sa.Text(), nullable=True),
        sa.Column("handle", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("blueprint_version", sa.Text(), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("draining_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_cluster_agents_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["supervisor_id"],
            ["cluster_agents.id"],
            name=op.f("fk_cluster_agents_supervisor_id_cluster_agents"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_agents")),
        sa.UniqueConstraint("agent_id", name=op.f("uq_cluster_agents_agent_id")),
    )
    op.create_index("ix_cluster_agents_cluster_id_status", "cluster_agents", ["cluster_id", "status"], unique=False)
    op.create_index("ix_cluster_agents_status_host_id", "cluster_agents", ["status", "host_id"], unique=False)
    op.create_index("ix_cluster_agents_stopped_at", "cluster_agents", ["stopped_at"], unique=False)
    op.create_index("ix_cluster_agents_supervisor_id", "cluster_agents", ["supervisor_id"], unique=False)
    op.create_table(
        "cluster_metrics",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("cpu_usage", sa.Float(precision=53), nullable=True),
        sa.Column("memory_usage", sa.Float(precision=53), nullable=True),
        sa.Column("tasks_per_minute", sa.Float(precision=53), nullable=False),
        sa.Column("avg_response_time", sa.Float(precision=53), nullable=True),
        sa.Column("error_rate", sa.Float(precision=53), nullable=False),
        sa.Column("active_agents", sa.Integer(), nullable=False),
        sa.Column("idle_agents", sa.Integer(), nullable=False),
        sa.Column("busy_agents", sa.Integer(), nullable=False),
        sa.Column("failed_agents", sa.Integer(), nullable=False),
        sa.Column("queue_length", sa.Integer(), nullable=True),
        sa.Column("queue_wait_time", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_cluster_metrics_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_metrics")),
    )
    op.create_index(
        "ix_cluster_metrics_cluster_id_timestamp", "cluster_metrics", ["cluster_id", "timestamp"], unique=False
    )
    op.create_index("ix_cluster_metrics_timestamp", "cluster_metrics", ["timestamp"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.UUID(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_events_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    op.create_index("ix_events_cluster_id_id", "events", ["cluster_id", "id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column(
            "status",
            sa.Enum("queued", "running", "succeeded", "failed", name="jobstatus"),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_jobs_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_cluster_id_created_at_id", "jobs", ["cluster_id", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], unique=False)
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["status", "published_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("create", "update", "scale", "hibernate", "reactivate", "destroy", name="operationkind"),
            nullable=False,
        ),
        sa.Column(
            "status",
            sa.Enum("pending", "running", "succeeded", "failed", name="operationstatus"),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("cluster_id", sa.Text(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column(
            "request", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_operations_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        sa.UniqueConstraint("message_id", name=op.f("uq_operations_message_id")),
    )
    op.create_index("ix_operations_cluster_id_created_at", "operations", ["cluster_id", "created_at"], unique=False)
    op.create_index("ix_operations_finished_at", "operations", ["finished_at"], unique=False)
    op.create_index(
        "ix_operations_unfinished",
        "operations",
        ["status", "published_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_operations_unfinished",
        table_name="operations",
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )
    op.drop_index("ix_operations_finished_at", table_name="operations")
    op.drop_index("ix_operations_cluster_id_created_at", table_name="operations")
    op.drop_table("operations")
    op.drop_index("ix_jobs_unfinished", table_name="jobs", postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.drop_index("ix_jobs_finished_at", table_name="jobs")
    op.drop_index("ix_jobs_cluster_id_created_at_id", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index("ix_events_cluster_id_id", table_name="events")
    op.drop_index("ix_events_at", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_cluster_metrics_timestamp", table_name="cluster_metrics")
    op.drop_index("ix_cluster_metrics_cluster_id_timestamp", table_name="cluster_metrics")
    op.drop_table("cluster_metrics")
    op.drop_index("ix_cluster_agents_supervisor_id", table_name="cluster_agents")
    op.drop_index("ix_cluster_agents_stopped_at", table_name="cluster_agents")
    op.drop_index("ix_cluster_agents_status_host_id", table_name="cluster_agents")
    op.drop_index("ix_cluster_agents_cluster_id_status", table_name="cluster_agents")
    op.drop_table("cluster_agents")
    op.drop_index("ix_clusters_type", table_name="clusters")
    op.drop_index("ix_clusters_tags", table_name="clusters", postgresql_using="gin")
    op.drop_index("ix_clusters_status", table_name="clusters")
    op.drop_index("ix_clusters_parent_cluster_id", table_name="clusters")
    op.drop_index("ix_clusters_name", table_name="clusters")
    op.drop_index("ix_clusters_created_at_id", table_name="clusters")
    op.drop_index("ix_clusters_blueprint_id_blueprint_version", table_name="clusters")
    op.drop_table("clusters")
    op.drop_table("ticks")
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("hosts")
    op.drop_index("ix_cluster_blueprints_created_at", table_name="cluster_blueprints")
    op.drop_table("cluster_blueprints")
    for name in (
        "agentrole", "agentstatus", "clusterintent", "clusterstatus", "clustertype", "jobstatus", "operationkind",
        "operationstatus",
    ):  # fmt: skip
        op.execute(f"DROP TYPE {name}")
