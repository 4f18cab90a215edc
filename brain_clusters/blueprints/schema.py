"""The blueprint format as one Cerberus schema. blueprints/README.md explains it to people; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brain_clusters.blueprints.alerts import ALERTS
from brain_clusters.blueprints.schema_scaling import SCALING
from brain_clusters.domain.specs import MAX_COUNT
from brain_clusters.domain.states import AgentRole, ClusterType

Rule = dict[str, Any]

_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_HANDLER = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


def _text(description: str, longest: int = 200, *, must: str | None = None, **rules: Any) -> Rule:
    meta = {"description": description} | ({"must": must} if must else {})
    return {"type": "string", "minlength": 1, "maxlength": longest, "meta": meta, **rules}


def _optional_text(description: str, longest: int = 200) -> Rule:
    return {"type": "string", "nullable": True, "maxlength": longest, "meta": {"description": description}}


def _whole(description: str, lowest: int, highest: int, **rules: Any) -> Rule:
    return {"type": "integer", "min": lowest, "max": highest, "meta": {"description": description}, **rules}


def _texts(description: str, most: int = 100, longest: int = 200) -> Rule:
    entry = {"type": "string", "minlength": 1, "maxlength": longest}
    return {"type": "list", "maxlength": most, "schema": entry, "meta": {"description": description}}


def _free(description: str) -> Rule:
    return {"type": "dict", "meta": {"description": description}}


def _keys(description: str, keys: Mapping[str, Rule], **rules: Any) -> Rule:
    return {"type": "dict", "schema": dict(keys), "meta": {"description": description}, **rules}


def _conditions(description: str, keys: Mapping[str, Rule]) -> Rule:
    return {"type": ["list", "dict"], "conditions": dict(keys), "meta": {"description": description}}


def _flag(description: str) -> Rule:
    return {"type": "boolean", "meta": {"description": description}}


def _duration(description: str, check_with: str = "duration", **rules: Any) -> Rule:
    return {"type": ["number", "string"], "check_with": check_with, "meta": {"description": description}, **rules}


METADATA = {
    "id": _text(
        "The blueprint's id. With the version it names the blueprint for ever.",
        100,
        required=True,
        regex=_IDENTIFIER,
        must="be 1 to 100 letters, digits, '.', '_' or '-' and begin with a letter or digit",
    ),
    "name": _text("The name that people read.", required=True),
    "version": _text('The version, as text: 1.10 stays "1.10". A stored version never changes.', 100, required=True),
    "author": _optional_text("Who answers for it."),
    "description": _optional_text("What clusters made from it are for.", 10_000),
    "tags": _texts("Words to find it by."),
}

CLUSTER = {
    "type": _text(
        "What kind of cluster it makes.",
        required=True,
        allowed=[str(each) for each in ClusterType],
    ),
    "min_workers": _whole("The fewest agents of a cluster that is awake.", 0, MAX_COUNT, required=True),
    "max_workers": _whole("The most agents of a cluster.", 1, MAX_COUNT, required=True),
    "default_workers": _whole(
        "How many agents a new cluster starts; by default min_workers or the sum of the groups' minimums, the larger.",
        0,
        MAX_COUNT,
    ),
    "scaling": _keys("When and how far the autoscaler moves the scalable groups.", SCALING, default={}),
}

AGENT_GROUP = {
    "role": _text(
        "The group's place in the hierarchy; exactly one group is the supervisor.",
        required=True,
        allowed=[str(each) for each in AgentRole],
    ),
    "name": _text("The group's name, unique in the blueprint. Jobs are addressed to it.", 100, required=True),
    "count": {
        "type": ["integer", "string"],
        "check_with": "count",
        "default": 1,
        "meta": {"description": 'How many agents: 2 is fixed; "0-5" is scalable and starts at its minimum.'},
    },
    "description": _optional_text("What the group is for.", 10_000),
    "reports_to": _text("The group it reports to, by name; by default the supervisor.", 100, nullable=True),
    "capabilities": _texts("What jobs may ask for instead of a group's name."),
    "skills": _texts("What its agents are good at, for people and for handlers to read."),
    "config": _free("Anything the handler needs; handed to it as context.config. Any JSON mapping."),
    "handler": _text(
        "The Python function that does a job: package.module:function, called with (payload, context).",
        300,
        regex=_HANDLER,
        must="name a function as package.module:function",
    ),
    "command": {
        **_texts("The program that does a job, as a list of arguments; it reads the payload as JSON.", 100, 10_000),
        "minlength": 1,
    },
    "concurrency": _whole("How many jobs one agent does at a time.", 1, 64, default=1),
    "timeout": _duration("The longest that one job of a command may take.", "positive_duration"),
    "max_deliveries": _whole(
        "How often a job may be given to an agent that then dies, before it fails.", 1, 20, default=3
    ),
    "resources": _free("What one agent needs of the machine."),
    "cost": _free("What one agent costs."),
    "driver": _text(
        "The engine that runs its agents.",
        allowed=["process"],
    ),
}

_ANYTHING = ["string", "number", "boolean", "list", "dict"]
RESOURCES: dict[str, Rule] = {
    "memory": {"type": _ANYTHING, "meta": {"description": "The memory that the agents share."}},
    "knowledge_base": {"type": _ANYTHING, "meta": {"description": "Where the agents look things up."}},
    "tools": {
        "type": "list",
        "maxlength": 100,
        "schema": {"type": ["string", "dict"]},
        "meta": {"description": "What the agents may use."},
    },
}

LIFECYCLE = {
    "hibernate_conditions": _conditions(
        "A cluster goes to sleep when all that are stated hold.",
        {
            "idle_time": _duration("No job has run or waited for so long."),
            "task_queue_empty": _flag("No job waits; always needed, so false is refused."),
            "load_below": {
                "type": ["number", "string"],
                "check_with": "percent",
                "meta": {"description": "The load is below this percentage."},
            },
        },
    ),
    "destroy_conditions": _conditions(
        "When a sleeping cluster is destroyed.",
        {
            "hibernated_duration": _duration("It has slept for so long.", "positive_duration"),
            "manual_trigger": _flag("Somebody asks for it."),
        },
    ),
    "reactivate_triggers": _conditions(
        "What wakes a sleeping cluster.",
        {
            "new_task_received": _flag("A job arrives."),
            "manual_trigger": _flag("Somebody asks for it."),
            "schedule": {
                "type": "string",
                "check_with": "cron",
                "meta": {
                    "description": "A five-field cron expression, in UTC; may be given several times.",
                    "repeats": True,
                },
            },
        },
    ),
}

MONITORING: dict[str, Rule] = {
    "metrics": _texts("The metrics that people watch first."),
    "alerts": ALERTS,
}

BLUEPRINT = {
    "metadata": _keys("Which blueprint this is.", METADATA, required=True),
    "cluster": _keys("The bounds of a cluster made from it.", CLUSTER, required=True),
    "agents": {
        "type": "list",
        "minlength": 1,
        "maxlength": 100,
        "required": True,
        "schema": _keys("One agent group.", AGENT_GROUP),
        "meta": {"description": "The agent groups; each owns one queue."},
    },
    "resources": _keys("What all agents of a cluster share.", RESOURCES),
    "lifecycle": _keys("When a cluster sleeps, wakes and ends.", LIFECYCLE),
    "monitoring": _keys("What to watch.", MONITORING),
}
