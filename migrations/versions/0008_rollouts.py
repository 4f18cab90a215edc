"""Rollouts of blueprint versions, and clusters that the autoscaler leaves alone

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
works_with = "0005"

_JSON = postgresql.JSONB(astext_type=sa.Text())
_EMPTY = sa.text("'{}'::jsonb")
_TIME = sa.DateTime(timezone=True)
_CLOCK = sa.text("clock_timestamp()")
_STATUS = sa.Enum(
    "running", "paused", "reverting", "succeeded", "reverted", "failed", "superseded", name="rolloutstatus"
)  # fmt: skip


def upgrade() -> None:
    op.execute("ALTER TYPE operationkind ADD VALUE IF NOT EXISTS 'rollout'")
    op.add_column("clusters", sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "rollouts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("status", _STATUS, server_default="running", nullable=False),
        sa.Column("from_version", sa.Text(), nullable=False),
        sa.Column("to_version", sa.Text(), nullable=False),
        sa.Column("undo", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("policy", _JSON, nullable=False),
        sa.Column("before", _JSON, nullable=False),
        sa.Column("progress", _JSON, server_default=_EMPTY, nullable=False),
        sa.Column("stranded", _JSON, server_default=_EMPTY, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.UUID(), nullable=True),
        sa.Column("created_at", _TIME, server_default=_CLOCK, nullable=False),
        sa.Column("progress_at", _TIME, server_default=_CLOCK, nullable=False),
        sa.Column("pending_since", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_rollouts_cluster_id_clusters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index("ix_rollouts_cluster_id_created_at", "rollouts", ["cluster_id", "created_at"], unique=False)
    op.create_index(
        "uq_rollouts_cluster_id_under_way", "rollouts", ["cluster_id"], unique=True,
        postgresql_where=sa.text("status IN ('running', 'paused', 'reverting')"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("rollouts")
    op.execute("DROP TYPE rolloutstatus")
    op.drop_column("clusters", "paused")
    # A value of an enum stays in the type; the older code knows no row that has it.
    op.execute("UPDATE operations SET kind = 'update' WHERE kind = 'rollout'")
