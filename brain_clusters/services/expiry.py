"""Finished jobs go after their time, in batches, so that no single statement holds much or takes long."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select

from brain_clusters.db.models import Job
from brain_clusters.domain.states import FINISHED_JOB_STATUSES
from brain_clusters.services.control import Control

_BATCH = 5000
# What is left after so many is the next call's.
_MOST_BATCHES = 20


def prune(control: Control) -> int:
    """Delete finished jobs, and with them their results, that are older than is set; return how many.

    Dead letters have a time of their own.
    """
    settings = control.settings
    return _delete(control, Job.error_key.is_(None), settings.job_ttl_seconds) + _delete(
        control, Job.error_key.is_not(None), max(settings.job_ttl_seconds, settings.dead_letter_ttl_seconds)
    )


def _delete(control: Control, kind: ColumnElement[bool], seconds: float) -> int:
    old = Job.finished_at < func.now() - timedelta(seconds=seconds)
    finished, deleted = and_(Job.status.in_(FINISHED_JOB_STATUSES), kind, old), 0
    for _ in range(_MOST_BATCHES):
        with control.database.transaction() as session:
            ids = (
                select(Job.id).where(finished).order_by(Job.finished_at).limit(_BATCH).with_for_update(skip_locked=True)
            )
            statement = delete(Job).where(Job.id.in_(ids.scalar_subquery())).returning(Job.id)
            batch = session.execute(statement.execution_options(synchronize_session=False)).all()
        deleted += len(batch)
        if len(batch) < _BATCH:
            break
    return deleted
