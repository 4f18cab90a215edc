"""What agents handed down: its rows in PostgreSQL, who waits for it, and what has to be cancelled with whom."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, DateTime, Text, and_, case, cast, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from brain_clusters.broker.delegating import Joins
from brain_clusters.db.bulk import Columns, records_of
from brain_clusters.db.models import Cluster, Job
from brain_clusters.domain.states import JobStatus
from brain_clusters.domain.storable import storable_json
from brain_clusters.errors import TemporaryError
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

_BATCH = 2000
_MOST_BATCHES = 10
_TIME = DateTime(timezone=True)
_COLUMNS: Columns = {
    "id": Text, "cluster_id": Text, "group_name": Text, "payload": JSONB, "created_at": _TIME, "published_at": _TIME,
    "priority": Text, "options": JSONB, "parent_id": Text, "root_id": Text,
}  # fmt: skip


# --- rows for what was handed down --------------------------------------------------------------------------------


def collect(control: Control) -> int:
    """Store jobs that agents handed down; return how many. Before their outcomes, though these may come first, too."""
    joins, stored = Joins(control.broker.redis), 0
    for _ in range(_MOST_BATCHES):
        entries = joins.accepted(_BATCH)
        # One row a job: PostgreSQL refuses to update one twice in one statement.
        _store_sound(control, list({entry["id"]: entry for _, entry in entries if entry}.values()))
        joins.forget_accepted([place for place, _ in entries])
        stored += len(entries)
        if len(entries) < _BATCH:
            break
    return stored


def _store_sound(control: Control, entries: Sequence[Mapping[str, Any]]) -> None:
    """Store jobs at once or, where that fails, in halves, without those that PostgreSQL refuses."""
    try:
        if entries:
            _store(control, entries)
    except TemporaryError:
        raise
    except Exception as exc:  # noqa: BLE001 - agents run users' code, which can announce anything
        if len(entries) == 1:
            log.error("a job was handed down and cannot be stored: %s", exc, extra={"job_id": entries[0]["id"]})
            return
        half = len(entries) // 2
        _store_sound(control, entries[:half])
        _store_sound(control, entries[half:])


def _store(control: Control, entries: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows. A row that an outcome made gets what that did not tell; one of an earlier life begins anew."""
    given = records_of("given", _COLUMNS, [_as_record(entry) for entry in entries])
    known = select(*given.c).join(Cluster, Cluster.id == given.c.cluster_id).order_by(given.c.id)
    statement = insert(Job).from_select(list(_COLUMNS), known)
    new = statement.excluded
    # Handed down again after its end: its parent is tried again.
    renewed = and_(
        Job.status.in_((JobStatus.FAILED, JobStatus.DEAD, JobStatus.CANCELLED)), Job.finished_at < new.created_at
    )
    values = {name: getattr(new, name) for name in ("priority", "options", "parent_id", "root_id", "created_at")}
    blank = {"result", "error", "error_key", "usage", "agent_id", "started_at", "finished_at"}
    values |= {name: case((renewed, null()), else_=getattr(Job, name)) for name in blank}
    values |= {
        "status": case((renewed, JobStatus.QUEUED), else_=Job.status),
        "attempts": case((renewed, 0), else_=Job.attempts),
        "payload": case((Job.status == JobStatus.SUCCEEDED, null()), else_=new.payload),
    }
    where = or_(Job.parent_id.is_(None), renewed)
    with control.database.transaction() as session:
        session.execute(statement.on_conflict_do_update(index_elements=[Job.id], set_=values, where=where))


def _as_record(entry: Mapping[str, Any]) -> str:
    options, at = entry["options"], datetime.fromtimestamp(entry["at"], UTC)
    record = json.dumps(
        {
            "id": entry["id"], "cluster_id": entry["cluster_id"], "group_name": entry["group"],
            "payload": entry.get("payload"), "created_at": at.isoformat(), "published_at": at.isoformat(),
            "priority": entry["priority"], "options": options, "parent_id": options["parent_id"],
            "root_id": options["root_id"],
        }
    )  # fmt: skip
    return storable_json(record)


# --- cancelled, and waiting ---------------------------------------------------------------------------------------


def descendants(control: Control, job_ids: Sequence[str]) -> list[str]:
    """Return all that was handed down below ``job_ids``, also what has no row yet.

    When those are to be cancelled already, nothing more is handed down below them, and this is all of it.
    """
    joins, seen = Joins(control.broker.redis), dict.fromkeys(job_ids)
    level = list(job_ids)
    while level:
        with control.database.transaction() as session:
            rows = session.scalars(select(Job.id).where(Job.parent_id == func.any(cast(level, ARRAY(Text))))).all()
        level = [child for child in dict.fromkeys([*rows, *joins.children(level)]) if child not in seen]
        seen |= dict.fromkeys(level)
    return [job_id for job_id in seen if job_id not in set(job_ids)]


def end_waiting(control: Control, job_ids: Sequence[str]) -> list[str]:
    """End those of ``job_ids`` that wait for others as cancelled, since no agent has them; return them."""
    joins = Joins(control.broker.redis, ttl_seconds=control.settings.job_ttl_seconds)
    error = {"type": "JobCancelled", "message": "cancelled while it waited for the jobs that it had handed down"}
    return joins.cancel_waiting(job_ids, error) if job_ids else []


def join_cancelled(control: Control, job_ids: Sequence[str]) -> None:
    """Let the parents of ``job_ids`` go on without those that were cancelled before they were begun."""
    error = {"type": "JobCancelled", "message": "cancelled before it was begun"}
    if job_ids:
        Joins(control.broker.redis).join_cancelled(job_ids, error)


def leave_waiting(control: Control, job_ids: Sequence[str]) -> set[str]:
    """Return those of ``job_ids`` that are in no queue because they wait for others, and note that they were seen."""
    waiting = set(Joins(control.broker.redis).pending(job_ids)) if job_ids else set()
    if waiting:
        with control.database.transaction() as session:
            seen = update(Job).where(Job.id == func.any(cast(sorted(waiting), ARRAY(Text))))
            session.execute(seen.values(published_at=func.now()).execution_options(synchronize_session=False))
    return waiting
