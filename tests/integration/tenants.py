"""Two tenants with rows of every kind. Whatever of the second one is not for the first has the word CANARY in it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.notes import PROGRESS_FIELD, JobNotes
from brain_clusters.db.models import (
    Agent,
    Alert,
    ApiKey,
    Audit,
    Event,
    Job,
    Metrics,
    Operation,
    Rollout,
    ScalingDecision,
    Usage,
)
from brain_clusters.domain.access import Identity, Role
from brain_clusters.domain.commands import CreateCluster, Origin
from brain_clusters.domain.states import JobStatus, OperationKind, RolloutStatus
from brain_clusters.services import access, blueprints, lifecycle, operations, sessions, submitting
from brain_clusters.services.access import NewKey
from brain_clusters.services.control import Control
from brain_clusters.services.newjobs import NewJob

CANARY, SECRET, FIGURE = "canary-of-the-other-tenant", "payload-that-few-may-read", 7_417_417

SHOP = """
metadata: {id: shop, name: A shop, version: "1.0"}
cluster: {type: project, min_workers: 1, max_workers: 8}
agents:
  - {role: supervisor, name: Head, count: 1}
  - {role: worker, name: Clerks, count: 0-5, reports_to: Head, capabilities: [filing], cost: {per_hour: 1}}
monitoring: {alerts: [{condition: error_rate > 10%, action: notify_admin}]}
"""
_POLICY = {
    "max_parallel": 1, "min_healthy_seconds": 1, "progress_deadline_seconds": 1, "auto_revert": True,
}  # fmt: skip
HIDDEN = SHOP.replace("id: shop", "id: hidden").replace("filing", f"lettering, {CANARY}").replace("Clerks", "Others")


@dataclass(slots=True)
class Tenant:
    """What one tenant has. names: of one thing of each kind, by the name that it has in paths."""

    tag: str
    names: dict[str, str] = field(default_factory=dict)


def seed(control: Control, tag: str, word: str) -> Tenant:
    """Make a tenant that has something of everything, all texts of it with ``word`` in them."""
    blueprint = "hidden" if word == CANARY else "shop"
    blueprints.store(control, HIDDEN if word == CANARY else SHOP)
    tenant = Tenant(tag, {"blueprint_id": blueprint, "cluster_id": new_cluster(control, tag, word, blueprint)})
    cluster_id = tenant.names["cluster_id"]
    with control.database.transaction() as session:
        operation = session.query(Operation).filter_by(cluster_id=cluster_id).one()
    operations.run(control, operation.id)
    tenant.names["operation_id"] = str(operation.id)
    tenant.names["job_id"] = dead_job(control, cluster_id, word)
    tenant.names |= {"unstored": _job_without_row(control, cluster_id, word)}
    tenant.names["running"] = _running_job(control, cluster_id, word)
    _rows(control, cluster_id, word)
    with control.database.transaction() as session:
        new = NewKey(name=f"key {word}", role=Role.ADMIN, tags=(tag,))
        tenant.names["key_id"] = access.make(session, new, word)[0].id
        tenant.names["rollout_id"] = str(session.query(Rollout).filter_by(cluster_id=cluster_id).one().id)
        tenant.names |= {"group": "Head", "name": "docs.js"}
        tenant.names["agent_id"] = session.query(Agent).filter_by(cluster_id=cluster_id).limit(1).one().agent_id
    opener = Identity(name=word, role=Role.ADMIN, tags=(tag,), key_id=tenant.names["key_id"])
    tenant.names["session_id"] = sessions.open_for(control, opener, "192.0.2.7", word)[1].id
    return tenant


def new_cluster(control: Control, tag: str, word: str, blueprint: str = "shop") -> str:
    """Make a cluster of a tenant; return its id."""
    command = CreateCluster(
        id=f"{tag}-{uuid.uuid4().hex[:8]}", blueprint_id=blueprint, name=f"name {word}", description=word,
        tags=(tag, f"{tag}/{word}"), config={"note": word, "items": [word]},
    )  # fmt: skip
    return lifecycle.submit(control, command, Origin("api", word)).cluster.id


def new_agent(control: Control, tag: str, word: str) -> str:
    """Make a cluster of a tenant, and its agents; return the id of one of them."""
    cluster_id = new_cluster(control, tag, word)
    with control.database.transaction() as session:
        operation = session.query(Operation).filter_by(cluster_id=cluster_id).one()
    operations.run(control, operation.id)
    with control.database.transaction() as session:
        return session.query(Agent).filter_by(cluster_id=cluster_id).limit(1).one().agent_id


def dead_job(control: Control, cluster_id: str, word: str) -> str:
    """Make a dead letter; return its id."""
    job_id = submitting.submit(control, cluster_id, [NewJob(payload={"text": f"{word} {SECRET}"})]).jobs[0].id
    error = {"type": "ValueError", "message": f"{word} {SECRET}", "traceback": f"{word} {SECRET}"}
    with control.database.transaction() as session:
        values: Mapping[str, Any] = {
            "status": JobStatus.DEAD, "error": error, "error_key": "ValueError: it is wrong", "result": [word, SECRET],
            "finished_at": datetime.now(UTC), "usage": {"amount": 1.5, "calls": 3},
        }  # fmt: skip
        session.execute(update(Job).where(Job.id == job_id).values(values))
    return job_id


def _job_without_row(control: Control, cluster_id: str, word: str) -> str:
    """Tell of a job in Redis alone, as agents do of those that other clients sent."""
    report = JobReport(
        uuid.uuid4().hex, cluster_id, "Head", "agent-1", JobStatus.SUCCEEDED, 1, 1.0, 2.0, f"{word} {SECRET}",
        {"type": "E", "message": f"{word} {SECRET}"},
    )  # fmt: skip
    JobRecords(control.broker.redis).finish(report)
    return report.id


def _running_job(control: Control, cluster_id: str, word: str) -> str:
    job_id = submitting.submit(control, cluster_id, [NewJob(payload=[word, SECRET])]).jobs[0].id
    records = JobRecords(control.broker.redis)
    records.begin(job_id, "agent-1")
    fields = {"cluster_id": cluster_id, "group_name": "Head", "agent_id": "agent-1", "status": "running"}
    control.broker.redis.hset(f"brain:job:{job_id}", mapping={**fields, "attempts": "1", "started_at": "1"})
    JobNotes(control.broker.redis).write(job_id, PROGRESS_FIELD, f'"{word} {SECRET}"')
    return job_id


def _rows(control: Control, cluster_id: str, word: str) -> None:
    now = datetime.now(UTC)
    shown: dict[str, Any] = {"cluster_id": cluster_id, "reason": word}
    figure = FIGURE if word == CANARY else 1000
    counts = dict.fromkeys(("active_agents", "idle_agents", "busy_agents", "failed_agents"), figure)
    with control.database.transaction() as session:
        session.execute(update(Agent).where(Agent.cluster_id == cluster_id).values(last_error=f"{word} {SECRET}"))
        session.add_all(
            [
                Rollout(cluster_id=cluster_id, status=RolloutStatus.SUCCEEDED, from_version=word, to_version=word,
                        policy=_POLICY, before={}, reason=word, origin=word),
                Event(**shown, kind="test.told", actor=word, data={"text": word}),
                ScalingDecision(**shown, action="scale", before={}, after={}, inputs={"blueprint": ["x", word]}),
                Metrics(cluster_id=cluster_id, tasks_per_minute=1, error_rate=0, queue_length=1, **counts),
                Alert(cluster_id=cluster_id, name="error_rate > 10%", state="firing", fired_at=now),
                Operation(kind=OperationKind.SCALE, cluster_id=cluster_id, origin=word, request={"note": word},
                          error={"message": word}),
                Usage(day=now.date() - timedelta(days=1), cluster_id=cluster_id, group_name=f"group {word}",
                      agent_id=word, blueprint_id="shop", blueprint_version="1.0", tags=[word], idle_seconds=figure),
                Audit(actor=word, method="key", action="x", verb="POST", path=f"/{word}", cluster_id=cluster_id,
                      status=202, result="done", detail=word),
            ]
        )  # fmt: skip


def make_key(control: Control, role: Role, *tags: str, payloads: bool = False, over: str | None = None) -> str:
    """Make a key and return its text. over: revoked, or expired."""
    with control.database.transaction() as session:
        new = NewKey(name=f"{role} {tags}", role=role, payloads=payloads, tags=tags)
        row, shown = access.make(session, new, "a test")
        ended = {None: {}, "revoked": {"revoked_at": row.created_at}, "expired": {"expires_at": row.created_at}}[over]
        if ended:
            session.flush()
            session.execute(update(ApiKey).where(ApiKey.id == row.id).values(**ended))
    return shown


def guarded(control: Control) -> Control:
    """Return the same collaborators for an API that asks for keys."""
    return replace(control, settings=replace(control.settings, insecure_dev=False))
