"""Engines: what hosts have and agents ask for, which driver a host runs, and why an agent still is starting

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
works_with = "0004"

_ZERO = sa.text("0")


def upgrade() -> None:
    op.add_column("hosts", sa.Column("driver", sa.Text(), server_default="process", nullable=False))
    op.add_column("hosts", sa.Column("cpus", sa.Float(precision=53), nullable=True))
    op.add_column("hosts", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("hosts", sa.Column("holder", sa.Text(), nullable=True))
    op.add_column("hosts", sa.Column("suspected_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cluster_agents", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("cluster_agents", sa.Column("cpu", sa.Float(precision=53), server_default=_ZERO, nullable=False))
    op.add_column("cluster_agents", sa.Column("memory_bytes", sa.BigInteger(), server_default=_ZERO, nullable=False))


def downgrade() -> None:
    for column in ("memory_bytes", "cpu", "reason"):
        op.drop_column("cluster_agents", column)
    for column in ("suspected_at", "holder", "memory_bytes", "cpus", "driver"):
        op.drop_column("hosts", column)
