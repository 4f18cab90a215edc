"""What a look at PostgreSQL shows, for somebody who seeks a fault. Judges nothing, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select, text

from brain_clusters.db.models import Host, Operation, Tick
from brain_clusters.domain.states import OperationStatus
from brain_clusters.errors import SchemaMismatch
from brain_clusters.services.control import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """PostgreSQL. Ages and the clock's lead over ours in seconds; schema: what does not fit, None when all does.

    tick_age: of the last run of any periodic task, None when none ever ran; waiting_age: of the oldest operation that
    nobody has begun; hosts: seconds since each was seen, of those that have not given up.
    """

    version: str
    clock_lead: float
    schema: str | None
    tick_age: float | None = None
    waiting: int = 0
    waiting_age: float | None = None
    hosts: dict[str, float]


def of_database(control: Control) -> DatabaseFacts:
    """Return what PostgreSQL tells; raise TemporaryError when it does not answer."""
    try:
        control.database.check_schema()
    except SchemaMismatch as exc:
        version, lead = _server(control)
        return DatabaseFacts(version=version, clock_lead=lead, schema=str(exc), hosts={})
    version, lead = _server(control)
    with control.database.transaction() as session:
        now = func.clock_timestamp()
        ran = session.scalar(select(func.extract("epoch", now - func.max(Tick.ran_at))))
        pending = select(func.count(), func.extract("epoch", now - func.min(Operation.created_at))).where(
            Operation.status == OperationStatus.PENDING
        )
        waiting, age = session.execute(pending).one()
        seen = select(Host.id, func.extract("epoch", now - Host.seen_at)).where(Host.holder.is_not(None))
        hosts = {row[0]: float(row[1]) for row in session.execute(seen)}
    return DatabaseFacts(
        version=version, clock_lead=lead, schema=None, tick_age=None if ran is None else float(ran), waiting=waiting,
        waiting_age=None if age is None else float(age), hosts=hosts,
    )  # fmt: skip


def _server(control: Control) -> tuple[str, float]:
    """Return the server's version and how far its clock is ahead of ours, in seconds."""
    with control.database.engine.connect() as connection:
        before = datetime.now(UTC)
        version, theirs = connection.execute(text("SELECT current_setting('server_version'), clock_timestamp()")).one()
        after = datetime.now(UTC)
    middle = before + (after - before) / 2
    return str(version), (theirs - middle).total_seconds()
