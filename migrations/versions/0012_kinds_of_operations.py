"""Rollouts as updates that roll out: older code reads these rows, too, and stumbles over a kind that it does not know

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    no = sa.text("false")
    op.add_column("operations", sa.Column("rolls_out", sa.Boolean(), server_default=no, nullable=False))
    # As text: the value may be as new as this transaction, which may not use it then.
    op.execute("UPDATE operations SET kind = 'update', rolls_out = true WHERE kind::text = 'rollout'")


def downgrade() -> None:
    op.execute("UPDATE operations SET kind = 'rollout' WHERE rolls_out")
    op.drop_column("operations", "rolls_out")
