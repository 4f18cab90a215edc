"""``Idempotency-Key``: a request that is sent again meets what the first one made.

The key is looked up and stored in the transaction that records the command or the job, under a lock on the key. So
of two same requests at once the second waits for the first, and a request that fails leaves its key unused.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import IdempotencyKey
from brain_clusters.domain.commands import Command, Origin
from brain_clusters.errors import Conflict, InvalidInput
from brain_clusters.failpoints import failpoint
from brain_clusters.services import clusters, lifecycle, operations, served, submitting
from brain_clusters.services.control import Control
from brain_clusters.services.lifecycle import Accepted
from brain_clusters.services.newjobs import NewJob
from brain_clusters.services.submitting import Submission

# A first answer that is this late will not come any more: its server died.
_ANSWER_GRACE_SECONDS = 2.0
_RETRY_SECONDS = 1.0
# Any constant serves that differs from the seed of message ids, whose locks are of the same kind.
_LOCK_SEED = 1


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key, with whose it is. fingerprint: what it stands for; wait_seconds: how long the first answer may
    wait, 0 for not.
    """

    text: str
    fingerprint: str
    wait_seconds: float = 0.0


class StillAnswering(Conflict):
    """The first request with this key is still being answered. Try again after ``delay_seconds``."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the first request with this Idempotency-Key is still being answered; try again in a moment")
        self.delay_seconds = _RETRY_SECONDS


def fingerprint(parts: Sequence[str], body: Any) -> str:
    """Return the SHA-256 of a request's ``parts`` and of its body, however the body's JSON was laid out."""
    canonical = json.dumps([*parts, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def submit(control: Control, command: Command, origin: Origin, key: Key | None) -> Accepted:
    """Do as ``lifecycle.submit``, once per key. Raises InvalidInput for a key that stands for something else."""
    if key is None:
        return lifecycle.submit(control, command, origin)
    waiting = lifecycle.waiting_jobs(control, command)
    with control.database.transaction() as session:
        made = _made_before(session, key)
        if made is not None:
            operation = operations.get(session, made)
            return Accepted(operation, clusters.get(session, operation.cluster_id or ""), repeated=True)
        served.guard(control, session, command, origin.message_id)
        accepted = lifecycle.record(session, command, origin, control.settings.start_timeout_seconds, waiting)
        _keep(session, key, "operation", str(accepted.operation.id))
    failpoint("recorded")
    lifecycle.publish(control, accepted.operation)
    return accepted


@dataclass(frozen=True, slots=True)
class Sent:
    """The ids of a request's jobs, in its order. submission: None when an earlier request with this key made them."""

    ids: list[str]
    submission: Submission | None


def add_jobs(
    control: Control, cluster_id: str, news: Sequence[NewJob], key: Key | None, *, listed: bool = False
) -> Sent:
    """Accept and publish jobs, all or none, once per key. listed: faults name the place in the list.

    What is kept with the key is the seed of the jobs' ids, and not each of what may be ten thousand.
    """
    seed = uuid.uuid4().hex
    with control.database.transaction() as session:
        made = _made_before(session, key) if key else None
        if made is None:
            submission = submitting.record(session, cluster_id, news, seed=seed, listed=listed)
            if key:
                _keep(session, key, "jobs", seed)
    if made is not None:
        return Sent(submitting.job_ids(cluster_id, news, made), None)
    failpoint("recorded")
    submitting.dispatch(control, submission.cluster, submission.new)
    return Sent([job.id for job in submission.jobs], submission)


def answered(control: Control, key: Key) -> None:
    """Note that the first request has its answer; from now on the key may be used again."""
    with control.database.transaction() as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key.text).values(busy_until=None))


def _made_before(session: Session, key: Key) -> str | None:
    """Hold the key until the transaction ends; return the id of what it made, or None when it is new."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key.text, _LOCK_SEED))))
    busy = IdempotencyKey.busy_until > func.clock_timestamp()
    known = session.execute(
        select(IdempotencyKey.fingerprint, IdempotencyKey.subject_id, busy).where(IdempotencyKey.key == key.text)
    ).first()
    if known is None:
        return None
    stored_fingerprint, subject_id, is_busy = known
    if stored_fingerprint != key.fingerprint:
        raise InvalidInput("this Idempotency-Key was used for another request; take a new key for each request")
    if is_busy:
        raise StillAnswering
    return str(subject_id)


def _keep(session: Session, key: Key, kind: str, subject_id: str) -> None:
    busy = timedelta(seconds=key.wait_seconds + _ANSWER_GRACE_SECONDS)
    session.add(
        IdempotencyKey(
            key=key.text,
            fingerprint=key.fingerprint,
            kind=kind,
            subject_id=subject_id,
            busy_until=func.now() + busy if key.wait_seconds else None,
        )
    )
