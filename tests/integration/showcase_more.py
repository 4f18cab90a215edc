"""More rows for the showcase: a tree of jobs, keys, sessions, and lines of the audit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from brain_clusters.broker.notes import PROGRESS_FIELD, JobNotes
from brain_clusters.db.models import Agent, ApiKey, Audit, Event, Job, Operation
from brain_clusters.domain.access import Identity, Role
from brain_clusters.domain.states import JobStatus, OperationKind, OperationStatus
from brain_clusters.services import access, sessions
from brain_clusters.services.access import NewKey
from brain_clusters.services.control import Control
from tests.integration.showcase import MAIN, PIPELINE, SWARM

ROOT, FAILED = "7c1e90d2-plan-the-answer", "b8d34f10-read-the-thread"
_TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/desk/handlers.py", line 41, in read_thread
    messages = mail.fetch(ticket["thread"], timeout=20)
  File "/srv/desk/mail.py", line 118, in fetch
    raise ConnectionResetError(104, "the mail server closed the connection")
ConnectionResetError: [Errno 104] the mail server closed the connection
"""
# id, group, its parent, status, how many seconds ago it began, how long it took, what it cost.
_TREE: Sequence[tuple[str, str, str | None, str, int, float, float]] = (
    (ROOT, "Head of desk", None, "running", 74, 0, 0.0121),
    (FAILED, "Writers", ROOT, "dead", 70, 21.4, 0.0),
    ("c02a77e1-find-like-cases", "Triage", ROOT, "succeeded", 69, 8.2, 0.0034),
    ("d91b3c55-summarise-case-1", "Writers", "c02a77e1-find-like-cases", "succeeded", 66, 3.1, 0.0011),
    ("d91b3c56-summarise-case-2", "Writers", "c02a77e1-find-like-cases", "succeeded", 66, 4.0, 0.0012),
    ("e4471d08-write-the-answer", "Writers", ROOT, "running", 31, 0, 0.0027),
    ("f7730b12-check-the-tone", "Reviewers", ROOT, "queued", 0, 0, 0.0),
)
_LINES: Sequence[tuple[int, str, str, str, str, int, str, str | None, str | None]] = (
    (400, "ci", "key", "POST", "blueprints.add", 201, "done", None, None),
    (180, "grafana", "key", "POST", "lifecycle.scale", 403, "refused", MAIN, None),
    (96, "ana", "session", "POST", "keys.create", 201, "done", None, "key 9f2c1a7b 'grafana', viewer, tags []"),
    (71, "ben", "session", "POST", "jobs.retry_anywhere", 202, "done", None, "31 jobs"),
    (22, "ci", "key", "POST", "lifecycle.scale", 202, "done", SWARM, None),
    (14, "ana", "session", "DELETE", "lifecycle.destroy", 409, "failed", PIPELINE, "it is scaling up"),
    (3, "ana", "session", "POST", "rollouts.start", 202, "done", MAIN, None),
)


def build(control: Control) -> None:
    """Add to what ``showcase.build`` wrote."""
    now = datetime.now(UTC)
    with control.database.transaction() as session:
        agent = session.query(Agent).filter_by(cluster_id=MAIN, group_name="Writers", status="busy").first()
        assert agent is not None
        session.add_all(_job(now, agent.agent_id, *told) for told in _TREE)
        for number, (kind, minutes) in enumerate((("hibernate", 300), ("create", 4000), ("update", 55))):
            made = now - timedelta(minutes=minutes)
            session.add(Operation(
                id=uuid4(), kind=OperationKind(kind), status=OperationStatus.SUCCEEDED, cluster_id=MAIN, origin="api",
                request={"name": "Support desk", "tags": ["customers", "eu"]} if number else {}, created_at=made,
                started_at=made, finished_at=made + timedelta(seconds=2.2 + number), attempts=1, result={"agents": 12},
            ))  # fmt: skip
        for minutes, actor, method, verb, action, status, result, cluster_id, detail in _LINES:
            session.add(Audit(
                at=now - timedelta(minutes=minutes), actor=actor, method=method, verb=verb, action=action,
                path=f"/api/{action.replace('.', '/')}", status=status, result=result, cluster_id=cluster_id,
                detail=detail, address="10.0.4.17" if method == "session" else "10.0.9.2",
            ))  # fmt: skip
            session.flush()
        failed = session.query(Operation).filter_by(status=OperationStatus.FAILED).first()
        assert failed is not None
        session.query(Event).filter(Event.operation_id == failed.id, Event.cluster_id != SWARM).update(
            {"operation_id": None}
        )
        keys = [_key(session, now, *told) for told in (
            ("ana", Role.ADMIN, True, (), 4), ("ben", Role.OPERATOR, True, (), 55), ("ci", Role.OPERATOR, False, (), 22),
            ("grafana", Role.VIEWER, False, (), 1), ("eu support", Role.OPERATOR, True, ("customers",), None),
        )]  # fmt: skip
    _begin(control, now)
    JobNotes(control.broker.redis).write(ROOT, PROGRESS_FIELD, json.dumps({"step": "wait for Writers", "done": 3}))
    for key, agent_name in zip(keys, _AGENTS, strict=False):
        opener = Identity(name=key.name, role=key.role, key_id=key.id)
        sessions.open_for(control, opener, "10.0.4.17", agent_name)


_AGENTS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
)


def _key(session: Any, now: datetime, name: str, role: Role, payloads: bool, tags: Any, minutes: int | None) -> ApiKey:
    row, _ = access.make(session, NewKey(name=name, role=role, payloads=payloads, tags=tags), "ana")
    row.created_at = now - timedelta(days=30)
    row.expires_at = None if role is Role.ADMIN else now + timedelta(days=60)
    row.last_used_at = None if minutes is None else now - timedelta(minutes=minutes)
    return row


def _job(now: datetime, agent_id: str, *told: Any) -> Job:
    job_id, group, parent, status, begun, took, cost = told
    found, started = JobStatus(status), now - timedelta(seconds=begun)
    dead = found is JobStatus.DEAD
    return Job(
        id=job_id, cluster_id=MAIN, group_name=group, status=JobStatus.QUEUED if status == "running" else found,
        parent_id=parent, root_id=ROOT if parent else None, created_at=now - timedelta(seconds=begun + 2),
        published_at=started, started_at=started if begun else None, attempts=3 if dead else int(bool(begun)),
        finished_at=started + timedelta(seconds=took) if took else None, agent_id=agent_id if begun else None,
        payload={"ticket": 48_213, "thread": "INBOX/77120", "language": "en"} if found is not JobStatus.SUCCEEDED else None,
        result={"cases": 2, "best": "INBOX/71233"} if found is JobStatus.SUCCEEDED else None,
        error={"type": "ConnectionResetError", "message": "[Errno 104] the mail server closed the connection",
               "traceback": _TRACEBACK} if dead else None,
        error_key="ConnectionResetError: [Errno <n>] the mail server closed the connection" if dead else None,
        options={"max_attempts": 3, "timeout": 60} if group == "Writers" else {}, priority="high" if not parent else "normal",
        usage={"amount": cost, "calls": 4, "input_tokens": 5120, "output_tokens": 811} if cost else None,
    )  # fmt: skip


def _begin(control: Control, now: datetime) -> None:
    """Have Redis tell of those that run, as their agents would."""
    for job_id, group, _, status, begun, _, _ in _TREE:
        if status == "running":
            fields = {"cluster_id": MAIN, "group_name": group, "agent_id": f"{MAIN}.writers.1", "status": "running"}
            started = str(now.timestamp() - begun)
            told = {**fields, "attempts": "1", "started_at": started}
            control.broker.redis.hset(f"brain:job:{job_id}", mapping=told)
