"""Usage: what agents, jobs and sleep come to by day, and the budgets that were exceeded

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())
_ZERO = sa.text("0")


def _seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(precision=53), server_default=_ZERO, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=_ZERO, nullable=False)


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("blueprint_id", sa.Text(), nullable=False),
        sa.Column("blueprint_version", sa.Text(), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        _seconds("starting_seconds"),
        _seconds("idle_seconds"),
        _seconds("busy_seconds"),
        _seconds("draining_seconds"),
        _seconds("slot_seconds"),
        _seconds("saved_seconds"),
        _seconds("asleep_warm_seconds"),
        _count("jobs_succeeded"),
        _count("jobs_failed"),
        _count("unpriced_jobs"),
        sa.Column("jobs_amount", sa.Numeric(), server_default=_ZERO, nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("counters", _JSON, server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("day", "cluster_id", "group_name", "agent_id", name=op.f("pk_usage")),
    )
    op.create_index("ix_usage_cluster_id_day", "usage", ["cluster_id", "day"], unique=False)
    op.add_column("cluster_agents", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cluster_agents", _seconds("busy_seconds"))
    op.add_column(
        "cluster_agents", sa.Column("busy_days", _JSON, server_default=sa.text("'{}'::jsonb"), nullable=False)
    )
    # Of those that are there no more exact time is known.
    op.execute("UPDATE cluster_agents SET claimed_at = spawned_at WHERE host_id IS NOT NULL")
    op.add_column("clusters", sa.Column("budget_per_day", sa.Float(precision=53), nullable=True))
    op.add_column("clusters", sa.Column("over_budget_on", sa.Date(), nullable=True))
    op.add_column("clusters", sa.Column("over_budget_limit", sa.Float(precision=53), nullable=True))
    op.add_column("clusters", sa.Column("budget_waived_on", sa.Date(), nullable=True))


def downgrade() -> None:
    for column in ("budget_waived_on", "over_budget_limit", "over_budget_on", "budget_per_day"):
        op.drop_column("clusters", column)
    for column in ("busy_days", "busy_seconds", "claimed_at"):
        op.drop_column("cluster_agents", column)
    op.drop_index("ix_usage_cluster_id_day", table_name="usage")
    op.drop_table("usage")
