"""Counters for monitors, and what carries traces from process to process

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
works_with = "0005"

_KEY = ("cluster_id", "group_name", "metric", "label", "bucket")
_TRACED = ("operations", "cluster_agents")


def upgrade() -> None:
    op.create_table(
        "tallies",
        *(sa.Column(name, sa.Text(), nullable=False) for name in _KEY),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, name="pk_tallies"),
    )
    op.create_table(
        "tally_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _KEY),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally_entries"),
    )
    for table in _TRACED:
        op.add_column(table, sa.Column("trace", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    for table in reversed(_TRACED):
        op.drop_column(table, "trace")
    op.drop_table("tally_entries")
    op.drop_table("tallies")
