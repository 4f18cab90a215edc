"""What views answer, as shapes. ``views`` makes these; every answer of the tests is checked against them."""

from __future__ import annotations

from brain_clusters.api.shapes import (
    ANY,
    DAY,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    Media,
    Shape,
    by_name,
    listed,
    or_null,
    page,
    record,
    told,
    whole,
    words,
)
from brain_clusters.domain.states import (
    AgentRole,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    JobStatus,
    OperationKind,
    OperationStatus,
    RolloutStatus,
)

_TEXTS = listed(TEXT)
_COUNTS = by_name(WHOLE)
CLUSTER_MEMBERS: dict[str, Shape] = {
    "id": TEXT, "name": TEXT, "type": words(ClusterType), "status": words(ClusterStatus),
    "blueprint_id": TEXT, "blueprint_version": TEXT, "parent_cluster_id": or_null(TEXT),
    "min_workers": WHOLE, "max_workers": WHOLE,
    "current_workers": told(WHOLE, "Agents that are there."), "target_workers": told(WHOLE, "Agents that are wanted."),
    "group_targets": told(_COUNTS, "Agents that are wanted, by group."),
    "health_score": told(NUMBER, "0 to 1."), "load_percentage": told(NUMBER, "0 to 100."),
    "tasks_completed": WHOLE, "tasks_failed": WHOLE, "created_at": TIME, "started_at": or_null(TIME),
    "hibernated_at": or_null(TIME), "destroyed_at": or_null(TIME), "last_active": or_null(TIME),
    "wake_at": told(or_null(TIME), "When it wakes by itself."), "budget_per_day": or_null(NUMBER),
    "over_budget_on": or_null(DAY), "description": or_null(TEXT), "tags": _TEXTS, "config": OBJECT,
    "paused": told(TRUTH, "The autoscaler leaves it alone."),
    "possible": told(listed(words(OperationKind)), "The commands that it accepts now."),
}  # fmt: skip
CLUSTER = record("Cluster", CLUSTER_MEMBERS)
BACKLOG = record(
    "GroupBacklog", {"value": WHOLE, "cluster_id": TEXT, "group": TEXT, "waiting": WHOLE, "running": WHOLE}
)
_BACKLOG = record("Backlog", {"waiting": WHOLE, "running": WHOLE})
_STANDBY = record(
    "Standby", {"mode": words(("warm", "cold"))}, {"zygotes": or_null(WHOLE), "memory_bytes": or_null(WHOLE)}
)
ROLLOUT = record(
    "Rollout",
    {
        "id": TEXT, "cluster_id": TEXT, "status": words(RolloutStatus), "from_version": TEXT, "to_version": TEXT,
        "undo": TRUTH, "progress": told(_COUNTS, "Agents by what they are."),
        "stranded": told(_COUNTS, "Jobs, by group."),
        "reason": TEXT, "origin": TEXT, "operation_id": or_null(TEXT), "created_at": TIME, "progress_at": TIME,
        "finished_at": or_null(TIME), "max_parallel": ANY, "min_healthy_time": told(NUMBER, "Seconds."),
        "progress_deadline": told(NUMBER, "Seconds."), "auto_revert": TRUTH,
    },
)  # fmt: skip
WHOLE_CLUSTER = record(
    "WholeCluster",
    {
        **CLUSTER_MEMBERS,
        "backlog": told(or_null(_BACKLOG), "Jobs of this moment; null when nobody can tell."),
        "rollout": told(or_null(ROLLOUT), "What is under way."),
        "standby": told(by_name(_STANDBY), "What is kept in memory, by group."),
    },
)
CLUSTERS = page("clusters", CLUSTER)
OPERATION = record(
    "Operation",
    {
        "id": TEXT, "kind": words(OperationKind), "status": words(OperationStatus), "cluster_id": or_null(TEXT),
        "request": OBJECT, "result": or_null(OBJECT), "error": or_null(OBJECT), "attempts": WHOLE, "origin": TEXT,
        "created_at": TIME, "started_at": or_null(TIME), "finished_at": or_null(TIME),
    },
)  # fmt: skip
OPERATIONS = page("operations", OPERATION)
ROLLOUTS = page("rollouts", ROLLOUT)
ACCEPTED = record("Accepted", {"operation": OPERATION, "cluster": CLUSTER}, {"rollout": ROLLOUT})
AGENT = record(
    "Agent",
    {
        "id": TEXT, "cluster_id": TEXT, "agent_id": TEXT, "group": TEXT, "role": words(AgentRole),
        "supervisor_id": or_null(TEXT), "capabilities": _TEXTS, "skills": _TEXTS, "config": OBJECT,
        "status": words(AgentStatus), "health_score": NUMBER, "tasks_completed": WHOLE, "tasks_failed": WHOLE,
        "draining_at": or_null(TIME), "retiring": told(TRUTH, "Somebody wants another in its place."),
        "avg_task_duration": told(NUMBER, "Seconds."), "last_error": or_null(TEXT), "spawned_at": TIME,
        "ready_at": or_null(TIME), "last_active": or_null(TIME), "stopped_at": or_null(TIME), "driver": TEXT,
        "blueprint_version": TEXT, "host_id": or_null(TEXT), "reason": told(or_null(TEXT), "Why it still is starting."),
        "pid": or_null(WHOLE),
        "in_flight": or_null(WHOLE), "cpu": told(or_null(NUMBER), "%"), "memory": told(or_null(WHOLE), "Bytes."),
        "beat": told(words(("fresh", "missing", "unknown")), "unknown: Redis could not be asked."),
    },
)  # fmt: skip
AGENTS = page("agents", AGENT)
_HELD_JOB = record(
    "HeldJob",
    {
        "id": TEXT, "begun": told(TRUTH, "The agent works on it; else it is the next one."), "attempts": WHOLE,
        "started_at": or_null(TIME),
    },
)  # fmt: skip
WHOLE_AGENT = record(
    "WholeAgent",
    {
        **AGENT["properties"],
        "beat_at": or_null(TIME), "running_for": told(or_null(NUMBER), "Seconds on its present job."),
        "jobs": told(or_null(listed(_HELD_JOB)), "What it holds of our jobs; null when Redis could not be asked."),
    },
)  # fmt: skip
HIERARCHY = record("", {"cluster_id": TEXT, "hierarchy": {"$ref": "#/components/schemas/Branch"}})
BRANCH = record(
    "Branch",
    {
        "group": TEXT, "role": words(AgentRole), "target": WHOLE, "queue": TEXT, "queues": _TEXTS,
        "capabilities": _TEXTS,
        "agents": listed(record("", {"agent_id": TEXT, "status": words(AgentStatus), "supervisor_id": or_null(TEXT)})),
        "reports": listed({"$ref": "#/components/schemas/Branch"}),
    },
)  # fmt: skip
METRICS = page(
    "metrics",
    record(
        "Metrics",
        {
            "id": WHOLE, "cluster_id": TEXT, "timestamp": TIME, "cpu_usage": or_null(NUMBER),
            "memory_usage": or_null(NUMBER), "tasks_per_minute": NUMBER, "avg_response_time": or_null(NUMBER),
            "error_rate": NUMBER, "active_agents": WHOLE, "idle_agents": WHOLE, "busy_agents": WHOLE,
            "failed_agents": WHOLE, "queue_length": or_null(WHOLE), "queue_wait_time": or_null(NUMBER),
        },
    ),
)  # fmt: skip
EVENT = record(
    "Event",
    {
        "id": WHOLE, "at": TIME, "kind": told(TEXT, "subject.verb"), "actor": TEXT, "reason": TEXT,
        "cluster_id": or_null(TEXT), "operation_id": or_null(TEXT), "agent_id": or_null(TEXT), "data": OBJECT,
        "position": told(TEXT, "Its place in the history of all clusters; see the stream."),
    },
)  # fmt: skip
EVENTS = page("events", EVENT)
ALL_EVENTS = page("events", EVENT, position=told(TEXT, "A stream from here misses nothing after this list."))
ALERTS = whole(
    "alerts",
    record(
        "Alert",
        {
            "name": TEXT, "condition": TEXT, "resolve": or_null(TEXT), "action": _TEXTS, "for_seconds": NUMBER,
            "resolve_after_seconds": NUMBER, "severity": TEXT, "state": TEXT, "since": or_null(TIME),
            "value": or_null(NUMBER), "fired_at": or_null(TIME), "resolved_at": or_null(TIME),
        },
    ),
)  # fmt: skip
_DECISION = {
    "id": WHOLE, "at": TIME, "action": TEXT, "reason": TEXT, "before": _COUNTS, "after": _COUNTS, "held": OBJECT,
    "operation_id": or_null(TEXT), "blueprint_version": or_null(TEXT),
}  # fmt: skip
DECISIONS = page("decisions", record("Decision", _DECISION, {"inputs": told(OBJECT, "With `inputs=true`.")}))
EXPLAINED = record(
    "Explained",
    {
        "cluster_id": TEXT, "status": words(ClusterStatus), "action": TEXT, "reason": TEXT, "held": OBJECT,
        "before": _COUNTS, "after": _COUNTS, "signals_known": TRUTH, "signals": by_name(OBJECT),
        "paused": TRUTH,
        "wake_in": told(or_null(NUMBER), "Seconds."), "blueprint": record("", {"id": TEXT, "version": TEXT}),
        "policy": OBJECT, "died": by_name(record("", {"count": WHOLE, "last_error": or_null(TEXT)})),
    },
)  # fmt: skip
_OUTCOME = record("", {"action": TEXT, "after": _COUNTS, "reason": TEXT})
REPLAYED = record(
    "Replayed",
    {
        "cluster_id": TEXT, "blueprint": record("", {"id": TEXT, "version": TEXT}), "decisions": WHOLE,
        "differing": WHOLE, "unknown_groups": _TEXTS,
        "changes": listed(
            record("", {"id": WHOLE, "at": TIME, "differs": TRUTH, "recorded": _OUTCOME, "replayed": _OUTCOME})
        ),
    },
)  # fmt: skip
_JOB = {
    "id": TEXT, "status": words(JobStatus), "cluster_id": TEXT, "group": TEXT, "priority": TEXT, "result": ANY,
    "error": or_null(OBJECT), "error_key": or_null(TEXT), "attempts": WHOLE, "agent_id": or_null(TEXT),
    "created_at": TIME, "eta": or_null(TIME), "expires_at": or_null(TIME), "published_at": or_null(TIME),
    "started_at": or_null(TIME), "finished_at": or_null(TIME), "options": OBJECT, "parent_id": or_null(TEXT),
    "root_id": or_null(TEXT), "usage": or_null(OBJECT),
}  # fmt: skip
_MASKED = {"redacted": told(TRUTH, "What jobs are given and give back is null: it takes the right `payloads`.")}
JOB = record("Job", _JOB, _MASKED)
WHOLE_JOB = record("WholeJob", {**_JOB, "payload": ANY, "progress": ANY}, _MASKED)
JOBS = page("jobs", JOB)
ONE_JOB = record("", {"job": JOB})
ADDED_LIST = record(
    "AcceptedJobs",
    {"jobs": listed(record("", {"id": TEXT}, {"replayed": TRUTH})), "accepted": told(WHOLE, "Those that are new.")},
)
ADDED = {"anyOf": [ONE_JOB, ADDED_LIST]}
_CANDIDATE = {"cluster_id": TEXT, "group": TEXT, "expected_wait": told(or_null(NUMBER), "Seconds.")}
ROUTED = record(
    "",
    {
        "job": JOB,
        "routing": or_null(
            record("Route", {**_CANDIDATE, "reason": TEXT, "others": listed(record("Candidate", _CANDIDATE))})
        ),
    },
)
NODE = record(
    "Node",
    {
        **{name: _JOB[name] for name in ("id", "status", "cluster_id", "attempts", "agent_id", "created_at",
                                         "started_at", "finished_at", "usage", "group")},
        "waiting_for": ANY, "error": or_null(OBJECT), "amount": or_null(NUMBER),
        "children": listed({"$ref": "#/components/schemas/Node"}),
    },
)  # fmt: skip
TREE = record(
    "Tree",
    {
        "tree": {"$ref": "#/components/schemas/Node"},
        "totals": record("", {"jobs": WHOLE, "by_status": _COUNTS, "amount": or_null(NUMBER)}),
        "truncated": TRUTH,
    },
)
CANCELLED = record("", {"cancelled": WHOLE, "cancelling": WHOLE, "more": TRUTH})
_LETTERS = {
    "error_key": TEXT, "count": WHOLE, "retryable": WHOLE, "first_at": TIME, "last_at": TIME, "example_id": TEXT,
    "example_message": or_null(TEXT),
}  # fmt: skip
_WHERE = told(_TEXTS, "The ids of their clusters, at most 20.")
LETTERS = whole("dead_letters", record("DeadLetters", {**_LETTERS, "group": TEXT}, _MASKED))
ALL_LETTERS = whole("dead_letters", record("DeadLettersOfAll", {**_LETTERS, "clusters": _WHERE}, _MASKED))
RETRIED = record("", {"retried": WHOLE, "left": WHOLE, "without_payload": WHOLE})
DISCARDED = record("", {"discarded": WHOLE, "left": WHOLE, "without_payload": WHOLE})
_BLUEPRINT = {
    "id": TEXT, "name": TEXT, "version": TEXT, "manifest_path": or_null(TEXT), "description": or_null(TEXT),
    "author": or_null(TEXT), "tags": _TEXTS, "created_at": TIME, "updated_at": TIME, "is_active": TRUTH,
    "instances_created": told(or_null(WHOLE), "Null for callers that see only some clusters, as the next two."),
    "instances_active": or_null(WHOLE), "success_rate": or_null(NUMBER),
}  # fmt: skip
BLUEPRINTS = page("blueprints", record("Blueprint", _BLUEPRINT))
WHOLE_BLUEPRINT = record(
    "WholeBlueprint",
    {**_BLUEPRINT, "blueprint_yaml": TEXT, "versions": listed(record("", {"version": TEXT, "created_at": TIME}))},
    {"clusters": told(listed(OBJECT), "Those that are brought to a version that was stored with `rollout`.")},
)
VALIDATED = record(
    "ValidatedBlueprint",
    {
        "valid": TRUTH, "id": or_null(TEXT), "name": or_null(TEXT), "version": or_null(TEXT),
        "errors": listed(record("", {"pointer": TEXT, "detail": TEXT}, {"line": WHOLE, "column": WHOLE})),
    },
)  # fmt: skip
HOSTS = whole(
    "hosts",
    record(
        "Host",
        {
            "id": TEXT, "driver": TEXT, "capacity": WHOLE, "cpus": or_null(NUMBER), "memory_bytes": or_null(WHOLE),
            "seen_at": TIME, "lease": words(("held", "ended", "given_up")), "agents": WHOLE, "cpus_used": NUMBER,
            "memory_bytes_used": WHOLE,
        },
    ),
)  # fmt: skip
_TALLY = {
    "agent_seconds": by_name(NUMBER), "slot_seconds": NUMBER,
    "jobs": record("", {"succeeded": WHOLE, "failed": WHOLE}), "calls": or_null(WHOLE),
    "input_tokens": or_null(WHOLE), "output_tokens": or_null(WHOLE), "counters": by_name(NUMBER),
    "amount": told(or_null(NUMBER), "Null where a price is not known."), "amount_known": or_null(NUMBER),
    "saved": record("", {"agent_seconds": NUMBER, "amount": or_null(NUMBER)}),
}  # fmt: skip
TALLY = record("Tally", _TALLY)
_HEADINGS = ("agent_id", "group", "cluster_id", "blueprint_id", "blueprint_version", "tag", "day", "driver")
COSTS = record(
    "Costs",
    {
        "since": DAY, "until": DAY, "group_by": TEXT, "currency": TEXT,
        "rows": listed(record("CostRow", _TALLY, dict.fromkeys(_HEADINGS, or_null(TEXT)))), "total": WHOLE,
        "totals": TALLY,
    },
    {"cluster_id": TEXT},
)  # fmt: skip
HEALTH = record("", {"status": TEXT})
READY = record("Ready", {"status": words(("ready", "unavailable")), "redis": words(("up", "down")), "problems": _TEXTS})
VERSION = record("Version", {"version": TEXT, "commit": or_null(TEXT), "schema": TEXT})
PROBLEM = record(
    "Problem",
    {
        "type": {"type": "string", "format": "uri-reference"}, "title": TEXT, "status": WHOLE, "detail": TEXT,
        "instance": TEXT,
    },
    {
        "errors": listed(record("Fault", {"pointer": told(TEXT, "RFC 6901, into the body."), "detail": TEXT},
                                {"parameter": told(TEXT, "The query parameter or header that is at fault."),
                                 "in": words(("query", "header", "path")), "line": WHOLE, "column": WHOLE})),
        "cluster_status": TEXT, "possible": _TEXTS,
    },
)  # fmt: skip
A_PROBLEM = Media({"application/problem+json": PROBLEM})
