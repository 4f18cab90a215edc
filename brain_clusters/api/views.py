"""Rows as the JSON that callers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from brain_clusters.api import redaction
from brain_clusters.db.models import (
    Agent,
    ApiKey,
    Audit,
    Cluster,
    Event,
    Job,
    Metrics,
    Operation,
    Rollout,
    ScalingDecision,
    StoredBlueprint,
)
from brain_clusters.domain.access import Identity
from brain_clusters.domain.alerts import AlertRule, AlertState
from brain_clusters.domain.routing import Candidate, Route
from brain_clusters.domain.secrecy import without_secrets
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, READY_AGENT_STATUSES, TRANSITIONS, AgentStatus
from brain_clusters.services import access
from brain_clusters.services.agents import HeldJob
from brain_clusters.services.feed import position_of
from brain_clusters.services.tree_views import Node, Shown

_CLUSTER = (
    "id", "name", "type", "status", "blueprint_id", "blueprint_version", "parent_cluster_id", "min_workers",
    "max_workers", "current_workers", "target_workers", "group_targets", "health_score", "load_percentage",
    "tasks_completed", "tasks_failed", "created_at", "started_at", "hibernated_at", "destroyed_at", "last_active",
    "wake_at", "budget_per_day", "over_budget_on", "description", "tags", "config", "paused",
)  # fmt: skip
_AGENT = (
    "id", "cluster_id", "agent_id", "role", "supervisor_id", "capabilities", "skills", "config", "status",
    "health_score", "tasks_completed", "tasks_failed", "avg_task_duration", "last_error", "spawned_at", "ready_at",
    "last_active", "stopped_at", "driver", "host_id", "reason", "blueprint_version", "draining_at", "retiring",
)  # fmt: skip
_OPERATION = (
    "id", "kind", "status", "cluster_id", "request", "result", "error", "attempts", "origin", "created_at",
    "started_at", "finished_at",
)  # fmt: skip
_ROLLOUT = (
    "id", "cluster_id", "status", "from_version", "to_version", "undo", "progress", "stranded", "reason", "origin",
    "operation_id", "created_at", "progress_at", "finished_at",
)  # fmt: skip
_BLUEPRINT = (
    "id", "name", "version", "manifest_path", "description", "author", "tags", "created_at", "updated_at",
    "is_active", "instances_created", "instances_active", "success_rate",
)  # fmt: skip
_INSTANCES = ("instances_created", "instances_active", "success_rate")
_METRICS = (
    "id", "cluster_id", "timestamp", "cpu_usage", "memory_usage", "tasks_per_minute", "avg_response_time",
    "error_rate", "active_agents", "idle_agents", "busy_agents", "failed_agents", "queue_length", "queue_wait_time",
)  # fmt: skip
_EVENT = ("id", "at", "kind", "actor", "reason", "cluster_id", "operation_id", "agent_id", "data")
_DECISION = ("id", "at", "action", "reason", "before", "after", "held", "operation_id")
_JOB = (
    "id", "status", "cluster_id", "priority", "result", "error", "error_key", "attempts", "agent_id", "created_at",
    "eta", "expires_at", "published_at", "started_at", "finished_at", "options", "parent_id", "root_id", "usage",
)  # fmt: skip
_NODE = (
    "id", "status", "cluster_id", "attempts", "agent_id", "created_at", "started_at", "finished_at", "usage",
)  # fmt: skip
_AUDIT = (
    "id", "at", "actor", "key_id", "method", "address", "action", "verb", "path", "cluster_id", "operation_id",
    "status", "result", "detail",
)  # fmt: skip
_KEY = (
    "id", "name", "role", "payloads", "tags", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at",
    "last_used_from",
)  # fmt: skip
_MOST_CANDIDATES = 20
# By our name of a figure, the beat's own.
_BEAT_COUNTERS = {"tasks_completed": "completed", "tasks_failed": "failed", "avg_task_duration": "mean_time"}
_BEAT_FIGURES = ("in_flight", "cpu", "memory")


# What people wrote, where versions of ours that did not refuse secrets in it may have left some.
_WRITTEN = ("config", "request", "data")


def _fields(row: Any, names: Sequence[str]) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in names}
    return found | {name: without_secrets(found[name], name) for name in _WRITTEN if found.get(name)}


def cluster(row: Cluster) -> dict[str, Any]:
    """Return a cluster. possible: the commands that it accepts now."""
    return {**_fields(row, _CLUSTER), "possible": [str(kind) for kind in TRANSITIONS[row.intent]]}


def operation(row: Operation) -> dict[str, Any]:
    """Return an operation."""
    return _fields(row, _OPERATION)


def rollout(row: Rollout) -> dict[str, Any]:
    """Return a rollout. min_healthy_time, progress_deadline: seconds. stranded: see ``docs/rollouts.md``."""
    return {
        **_fields(row, _ROLLOUT),
        "max_parallel": row.policy["max_parallel"],
        "min_healthy_time": row.policy["min_healthy_seconds"],
        "progress_deadline": row.policy["progress_deadline_seconds"],
        "auto_revert": row.policy["auto_revert"],
    }


def agent(row: Agent, beats: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return an agent, with what its fresh beat tells. beats: by agent id; None when nothing is known of any.

    beat: "fresh", "missing", or "unknown" when Redis could not be asked. cpu (%) and memory (bytes) are null then.
    """
    shown = _fields(row, _AGENT)
    if row.status is not AgentStatus.FAILED:  # then it is what its host tells of its end; else of its last job
        shown["last_error"] = row.last_error if redaction.may_read() else None
    shown |= {"group": row.group_name, "pid": (row.handle or {}).get("pid"), **dict.fromkeys(_BEAT_FIGURES)}
    found = None if beats is None or row.status not in LIVE_AGENT_STATUSES else beats.get(row.agent_id)
    if found is None:
        return {**shown, "beat": "unknown" if beats is None else "missing"}
    shown |= {name: found[key] for name, key in _BEAT_COUNTERS.items() if found[key] is not None}
    shown |= {name: found[name] for name in _BEAT_FIGURES}
    if row.status in READY_AGENT_STATUSES:
        shown["status"] = found["state"]
    return {**shown, "beat": "fresh"}


def whole_agent(
    row: Agent, beats: Mapping[str, Mapping[str, Any]] | None, jobs: Sequence[HeldJob] | None
) -> dict[str, Any]:
    """Return an agent with what it holds. jobs: None when nothing is known. running_for: seconds, by its beat."""
    beat = {} if beats is None else beats.get(row.agent_id, {})
    return {
        **agent(row, beats),
        "beat_at": _time(beat.get("at")),
        "running_for": beat.get("running_for") if beat.get("in_flight") else None,
        "jobs": None if jobs is None else [{**asdict(job), "started_at": _time(job.started_at)} for job in jobs],
    }


def _time(seconds: float | None) -> datetime | None:
    """Return a time that is told in seconds since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def letter(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return dead letters of one kind. Their key has neither numbers nor ids nor quoted text, so all are shown it."""
    return redaction.masked(found, "example_message")


def decision(row: ScalingDecision) -> dict[str, Any]:
    """Return a decision of the autoscaler, without its inputs."""
    version = row.inputs["blueprint"][1] if row.inputs else None
    return {**_fields(row, _DECISION), "blueprint_version": version}


def whole_decision(row: ScalingDecision) -> dict[str, Any]:
    """Return a decision of the autoscaler with all that it was made from."""
    return {**decision(row), "inputs": row.inputs}


def job(row: Job) -> dict[str, Any]:
    """Return a job as lists show it."""
    shown = {**_fields(row, _JOB), "group": row.group_name, "error": redaction.error(row.error)}
    return redaction.masked(shown, "result")


def whole_job(row: Job, progress: Any) -> dict[str, Any]:
    """Return a job with its payload, which is kept until it succeeds, and what it told last of its progress."""
    return redaction.masked({**job(row), "payload": row.payload, "progress": progress}, "payload", "progress")


def tree(found: Shown) -> dict[str, Any]:
    """Return a tree of jobs, each with its children, the oldest first. What nobody knows is null."""
    totals = {"jobs": sum(found.totals.values()), "by_status": found.totals, "amount": found.amount}
    return {"tree": _node(found.top), "totals": totals, "truncated": found.cut}


def _node(node: Node) -> dict[str, Any]:
    error = node.job.error and {key: node.job.error.get(key) for key in ("type", "message")}
    return {
        **_fields(node.job, _NODE),
        "group": node.job.group_name,
        "waiting_for": node.waiting_for,
        "error": redaction.error(error),
        "amount": node.amount,
        "children": [_node(child) for child in node.children],
    }


def route(found: Route | None) -> dict[str, Any] | None:
    """Return where a job went and why. expected_wait: seconds, null where that is unknown."""
    if found is None:
        return None
    return {
        **_candidate(found.best),
        "reason": found.reason,
        "others": [_candidate(one) for one in found.others[:_MOST_CANDIDATES]],
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    return {"cluster_id": one.cluster_id, "group": one.group, "expected_wait": one.expected_wait}


def blueprint(row: StoredBlueprint) -> dict[str, Any]:
    """Return a blueprint as lists show it. Its figures are of all clusters, so who sees only some is not told them."""
    shown = _fields(row, _BLUEPRINT)
    return shown if redaction.sees_all() else {**shown, **dict.fromkeys(_INSTANCES), "manifest_path": None}


def whole_blueprint(row: StoredBlueprint, versions: Sequence[StoredBlueprint]) -> dict[str, Any]:
    """Return a blueprint with its text, and what other versions there are, the newest first."""
    known = [{"version": one.version, "created_at": one.created_at} for one in versions]
    return {**blueprint(row), "blueprint_yaml": row.blueprint_yaml, "versions": known}


def event(row: Event) -> dict[str, Any]:
    """Return an event. position: its place in the history of all clusters."""
    return {**_fields(row, _EVENT), "position": str(position_of(row))}


def alert(rule: AlertRule, state: AlertState) -> dict[str, Any]:
    """Return an alert of a cluster's blueprint and where it stands."""
    return {
        "name": rule.name,
        "condition": str(rule.condition),
        "resolve": None if rule.resolve is None else str(rule.resolve),
        "action": list(rule.actions),
        "for_seconds": rule.for_seconds,
        "resolve_after_seconds": rule.resolve_after_seconds,
        "severity": rule.severity,
        **_fields(state, ("state", "since", "value", "fired_at", "resolved_at")),
    }


def audit(row: Audit) -> dict[str, Any]:
    """Return a line of the audit."""
    return _fields(row, _AUDIT)


def key(row: ApiKey, now: datetime) -> dict[str, Any]:
    """Return a key, without its text, which nobody has but who was shown it. status: active, expired or revoked."""
    ended = "revoked" if row.revoked_at is not None else "expired"
    status = "active" if access.is_valid(row, now) else ended
    return {**_fields(row, _KEY), "status": status, "source": "made"}


def fixed_key(found: Identity) -> dict[str, Any]:
    """Return a key of the environment as a row among the others."""
    told = dict.fromkeys(_KEY) | {"id": found.key_id, "created_by": "BRAIN_API_KEYS", "status": "active"}
    own = {"name": found.name, "role": found.role, "payloads": found.payloads, "tags": list(found.tags)}
    return {**told, **own, "source": "environment"}


def metrics(row: Metrics) -> dict[str, Any]:
    """Return a sample of a cluster's figures."""
    return _fields(row, _METRICS)
