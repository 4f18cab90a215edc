"""Rollouts of blueprint versions

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
works_with = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
