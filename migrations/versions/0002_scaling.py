"""Scaling: the ledger of decisions, alerts, and jobs that wait for a time

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WAITING = sa.text("status = 'queued' AND published_at IS NULL AND eta IS NOT NULL")


def upgrade() -> None:
    op.add_column("clusters", sa.Column("unknown_ticks", sa.Integer(), server_default="0", nullable=False))
    op.add_column("clusters", sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("eta", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_eta", "jobs", ["eta"], unique=False, postgresql_where=_WAITING)
    op.create_table(
        "scaling_decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "held", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("inputs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("operation_id", sa.UUID(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_scaling_decisions_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scaling_decisions")),
    )
    op.create_index("ix_scaling_decisions_cluster_id_id", "scaling_decisions", ["cluster_id", "id"], unique=False)
    op.create_index("ix_scaling_decisions_at", "scaling_decisions", ["at"], unique=False)
    op.create_table(
        "alerts",
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("fired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_alerts_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("cluster_id", "name", name=op.f("pk_alerts")),
    )


def downgrade() -> None:
    op.drop_table("alerts")
    op.drop_index("ix_scaling_decisions_at", table_name="scaling_decisions")
    op.drop_index("ix_scaling_decisions_cluster_id_id", table_name="scaling_decisions")
    op.drop_table("scaling_decisions")
    op.drop_index("ix_jobs_eta", table_name="jobs", postgresql_where=_WAITING)
    op.drop_column("jobs", "eta")
    op.drop_column("clusters", "wake_at")
    op.drop_column("clusters", "unknown_ticks")
