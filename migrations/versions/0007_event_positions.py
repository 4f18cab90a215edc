"""Events have a position in the order of commits

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
