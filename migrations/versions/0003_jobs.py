"""Jobs: priority, options, trees, dead letters and what they used

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    # Not used before the transaction ends, as PostgreSQL demands of new values.
    op.execute("ALTER TYPE jobstatus ADD VALUE 'dead'")
    op.execute("ALTER TYPE jobstatus ADD VALUE 'cancelled'")
    op.add_column("jobs", sa.Column("priority", sa.Text(), server_default="normal", nullable=False))
    op.add_column("jobs", sa.Column("options", _JSON, server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.add_column("jobs", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("parent_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("root_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("error_key", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("usage", _JSON, nullable=True))
    op.create_index(
        "ix_jobs_dead_letters",
        "jobs",
        ["cluster_id", "error_key", "finished_at"],
        unique=False,
        postgresql_where=sa.text("error_key IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_root_id", "jobs", ["root_id"], unique=False, postgresql_where=sa.text("root_id IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_parent_id", "jobs", ["parent_id"], unique=False, postgresql_where=sa.text("parent_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_parent_id", table_name="jobs", postgresql_where=sa.text("parent_id IS NOT NULL"))
    op.drop_index("ix_jobs_root_id", table_name="jobs", postgresql_where=sa.text("root_id IS NOT NULL"))
    op.drop_index("ix_jobs_dead_letters", table_name="jobs", postgresql_where=sa.text("error_key IS NOT NULL"))
    for column in ("usage", "error_key", "root_id", "parent_id", "expires_at", "options", "priority"):
        op.drop_column("jobs", column)
    # An enum's value cannot be dropped: the type is made anew.
    op.execute("UPDATE jobs SET status = 'failed' WHERE status IN ('dead', 'cancelled')")
    op.execute("DROP INDEX ix_jobs_eta")
    op.execute("DROP INDEX ix_jobs_unfinished")
    op.execute("ALTER TABLE jobs ALTER COLUMN status DROP DEFAULT")
    op.execute("ALTER TYPE jobstatus RENAME TO jobstatus_0003")
    op.execute("CREATE TYPE jobstatus AS ENUM ('queued', 'running', 'succeeded', 'failed')")
    op.execute("ALTER TABLE jobs ALTER COLUMN status TYPE jobstatus USING status::text::jobstatus")
    op.execute("ALTER TABLE jobs ALTER COLUMN status SET DEFAULT 'queued'")
    op.execute("DROP TYPE jobstatus_0003")
    op.execute(
        "CREATE INDEX ix_jobs_eta ON jobs (eta) WHERE status = 'queued' AND published_at IS NULL AND eta IS NOT NULL"
    )
    op.execute("CREATE INDEX ix_jobs_unfinished ON jobs (status, published_at) WHERE status IN ('queued', 'running')")
