"""Who changed what, from where, with which result: a line for every change and for every one that was refused.

Where it can be, a line is written in the transaction of its change, so that neither is there without the other, and
no transaction more is needed. What changed nothing, or elsewhere, gets its line by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import Audit
from brain_clusters.domain.access import Identity
from brain_clusters.domain.storable import storable_text
from brain_clusters.services.control import Control
from brain_clusters.services.paging import Page, page

DONE, REFUSED, FAILED = "done", "refused", "failed"
# What an answer to a command that was accepted has; a line that is written before the answer says so.
_ACCEPTED = 202
_LONGEST = 500
_NOBODY = "unknown"
_BATCH = 10_000


@dataclass(slots=True)
class Line:
    """What is known of a request before it is answered. caller: None while nobody is known to send it.

    verb, path: of HTTP, without a query. written: the ids of lines that are stored already.
    """

    action: str
    verb: str
    path: str
    address: str | None
    caller: Identity | None = None
    written: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which lines are meant: those that match all that is stated."""

    actor: str | None = None
    action: str | None = None
    cluster_id: str | None = None
    key_id: str | None = None
    result: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_INSERT = text(
    "INSERT INTO audit (actor, key_id, method, address, action, verb, path, cluster_id, operation_id, status, result, "
    "detail) VALUES (:actor, :key_id, :method, :address, :action, :verb, :path, :cluster_id, :operation_id, :status, "
    ":result, :detail) RETURNING id"
)
_line: ContextVar[Line | None] = ContextVar("line", default=None)


@contextmanager
def of(line: Line) -> Iterator[None]:
    """Let changes of this thread be noted as made by the request of ``line``."""
    token = _line.set(line)
    try:
        yield
    finally:
        _line.reset(token)


def note(
    session: Session, *, cluster_id: str | None = None, operation_id: UUID | None = None, detail: str | None = None
) -> None:
    """Write the line of the request at hand in the transaction of its change; nothing where there is no request."""
    line = _line.get()
    if line is not None:
        values = {"cluster_id": cluster_id, "operation_id": operation_id, "detail": detail}
        line.written.append(_insert(session, line, {**values, "status": _ACCEPTED, "result": DONE}))


def close(control: Control, line: Line, status: int, *, cluster_id: str | None, detail: str | None) -> None:
    """Write the line of a request that was answered with ``status``, or mend what was written before. Raises
    TemporaryError.

    cluster_id: of its path, where its caller sees that cluster.
    """
    result = result_of(status)
    if not line.written:
        with control.database.transaction() as session:
            known = {"cluster_id": cluster_id, "detail": detail and storable_text(detail[:_LONGEST])}
            _insert(session, line, {**known, "operation_id": None, "status": status, "result": result})
    elif status != _ACCEPTED:
        # What is committed stays done, whatever its caller was told.
        with control.database.transaction() as session:
            session.execute(update(Audit).where(Audit.id.in_(line.written)).values(status=status))


def queued(
    session: Session, action: str, *, cluster_id: str | None, operation_id: UUID, error: str | None = None
) -> None:
    """Write the line of a command that came by the queue, in its transaction. error: why it was not accepted."""
    line = Line(action, "QUEUE", f"brain.{action}", None)
    result = {"status": 422, "result": FAILED} if error else {"status": _ACCEPTED, "result": DONE}
    known = {"cluster_id": cluster_id, "operation_id": operation_id, "detail": error and error[:_LONGEST]}
    _insert(session, line, {**known, **result, "actor": "celery", "method": "queue"})


def result_of(status: int) -> str:
    """Return what an HTTP status means for the audit."""
    if status < 400:
        return DONE
    return REFUSED if status in (401, 403, 429) else FAILED


def _insert(session: Session, line: Line, values: dict[str, Any]) -> int:
    caller = line.caller
    told = {
        "actor": caller.name if caller else _NOBODY, "key_id": caller.key_id if caller else None,
        "method": caller.method if caller else "none", "address": line.address, "action": line.action,
        "verb": line.verb, "path": storable_text(line.path[:_LONGEST]),
    }  # fmt: skip
    # As text on the connection, which takes a third of the time that the same takes as a statement of the ORM.
    found: int = session.connection().execute(_INSERT, {**told, **values}).scalar_one()
    return found


def listing(session: Session, wanted: AuditFilter, *, limit: int, cursor: str | None) -> Page[Audit]:
    """Return a page of lines, newest first."""
    equal = ("actor", "action", "cluster_id", "key_id", "result")
    stated = [(getattr(Audit, name), getattr(wanted, name)) for name in equal]
    query = select(Audit).where(*(column == value for column, value in stated if value is not None))
    if wanted.since is not None:
        query = query.where(Audit.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Audit.at < wanted.until)
    return page(session, query, (Audit.id,), lambda row: (row.id,), limit=limit, cursor=cursor)


def prune(control: Control) -> None:
    """Delete lines that are older than is set."""
    kept = timedelta(seconds=control.settings.audit_retention_seconds)
    while True:
        with control.database.transaction() as session:
            # By id, which is as good as by time for this and has an index.
            ids = select(Audit.id, Audit.at).order_by(Audit.id).limit(_BATCH).cte("oldest")
            old = select(ids.c.id).where(ids.c.at < func.now() - kept)
            deleted = session.execute(delete(Audit).where(Audit.id.in_(old)).returning(Audit.id)).all()
        if len(deleted) < _BATCH:
            return
