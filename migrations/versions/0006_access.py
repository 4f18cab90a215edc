"""Keys, sessions and the audit

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
