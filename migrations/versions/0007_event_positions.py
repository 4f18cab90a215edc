"""Events have a position that no later commit goes before, readers hear of them, and what was forgotten is known

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
works_with = "0005"

# In triggers, so that it holds whoever writes: an older process, a bulk statement, a cluster's deletion that cascades.
_TELL = """
CREATE FUNCTION tell_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('brain_events', '');
  RETURN NULL;
END $$
"""
_FORGET = """
CREATE FUNCTION note_forgotten_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event_horizon AS known (id, txid, event_id)
  SELECT 1, txid, id FROM gone ORDER BY txid DESC, id DESC LIMIT 1
  ON CONFLICT (id) DO UPDATE SET txid = excluded.txid, event_id = excluded.event_id
  WHERE (known.txid, known.event_id) < (excluded.txid, excluded.event_id);
  RETURN NULL;
END $$
"""


def upgrade() -> None:
    # The default is no volatile one: existing rows get this transaction's number without being written anew.
    op.add_column(
        "events",
        sa.Column(
            "txid", sa.BigInteger(), server_default=sa.text("pg_current_xact_id()::text::bigint"), nullable=False
        ),
    )
    op.create_index("ix_events_txid_id", "events", ["txid", "id"])
    op.create_table(
        "event_horizon",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("txid", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_event_horizon_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_horizon")),
    )
    op.execute(_TELL)
    op.execute(_FORGET)
    op.execute("CREATE TRIGGER tell AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION tell_events()")
    op.execute(
        "CREATE TRIGGER forget AFTER DELETE ON events REFERENCING OLD TABLE AS gone "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_forgotten_events()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER forget ON events")
    op.execute("DROP TRIGGER tell ON events")
    op.execute("DROP FUNCTION note_forgotten_events()")
    op.execute("DROP FUNCTION tell_events()")
    op.drop_table("event_horizon")
    op.drop_index("ix_events_txid_id", "events")
    op.drop_column("events", "txid")
