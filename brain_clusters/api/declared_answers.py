"""What rollouts, plan and apply answer, as shapes; see ``answers``."""

from __future__ import annotations

from brain_clusters.api.answers import ACCEPTED_MEMBERS, BLUEPRINT_MEMBERS
from brain_clusters.api.shapes import (
    ANY,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    by_name,
    listed,
    or_null,
    page,
    record,
    told,
    words,
)
from brain_clusters.domain.states import RolloutStatus

ROLLOUT = record(
    "Rollout",
    {
        "id": TEXT, "cluster_id": TEXT, "status": words(RolloutStatus), "from_version": TEXT, "to_version": TEXT,
        "undo": TRUTH, "progress": told(by_name(WHOLE), "Agents: old, new, and of these healthy."),
        "stranded": told(by_name(WHOLE), "Unfinished jobs by group that the version lacks."),
        "reason": TEXT, "origin": TEXT, "operation_id": or_null(TEXT), "created_at": TIME, "progress_at": TIME,
        "finished_at": or_null(TIME),
        "max_parallel": told({"type": ["integer", "string"]}, "A number or a percentage."),
        "min_healthy_time": told(NUMBER, "Seconds."), "progress_deadline": told(NUMBER, "Seconds."),
        "auto_revert": TRUTH,
    },
)  # fmt: skip
ROLLOUTS = page("rollouts", ROLLOUT)
ROLLING = record("AcceptedRollout", ACCEPTED_MEMBERS, {"rollout": ROLLOUT})
_AGENTS = record("AgentsMoved", {"replaced": WHOLE, "started": WHOLE, "stopped": WHOLE})
_COST = record(
    "HourlyCost",
    {
        "before": told(or_null(NUMBER), "Null where no price is known."), "after": or_null(NUMBER),
        "unpriced": told(listed(TEXT), "Groups with agents and without a price."),
    },
)  # fmt: skip
MOVE = record(
    "Move",
    {
        "cluster_id": TEXT, "action": words(("create", "rollout", "resize", "held", "refused")),
        "from_version": or_null(TEXT), "to_version": TEXT, "reason": or_null(TEXT), "operation_id": or_null(TEXT),
        "agents": _AGENTS, "cost_per_hour": _COST,
    },
)  # fmt: skip
_CHANGE = record(
    "Change",
    {
        "document": told(WHOLE, "The place of its text."), "kind": words(("blueprint", "cluster")), "id": TEXT,
        "version": or_null(TEXT), "action": words(("create", "update", "unchanged", "refused")),
        "reason": or_null(TEXT), "diff": told(TEXT, "Unified, to the version before."),
        "fields": listed(record("", {"field": TEXT, "before": ANY, "after": ANY})), "clusters": listed(MOVE),
        "operations": listed(TEXT), "error": or_null(OBJECT),
    },
)  # fmt: skip
PLAN = record(
    "Plan",
    {
        "fingerprint": TEXT, "changed": WHOLE, "refused": WHOLE, "changes": listed(_CHANGE), "agents": _AGENTS,
        "cost_per_hour": _COST,
    },
)  # fmt: skip
STORED = record("StoredBlueprint", BLUEPRINT_MEMBERS, {"clusters": told(listed(MOVE), "With `rollout`.")})
