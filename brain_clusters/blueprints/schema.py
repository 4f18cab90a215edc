"""The blueprint format as one Cerberus schema. blueprints/README.md explains it to people; a test compares the two."""

from __future__ import annotations

from brain_clusters.blueprints.alerts import ALERTS
from brain_clusters.blueprints.rules import (
    Rule,
    conditions,
    duration,
    flag,
    free,
    keys,
    optional_text,
    text,
    texts,
    whole,
)
from brain_clusters.blueprints.schema_engine import DRIVER, ENGINE
from brain_clusters.blueprints.schema_scaling import SCALING
from brain_clusters.blueprints.schema_work import BUDGET, DELEGATION, WORK
from brain_clusters.domain.specs import MAX_COUNT
from brain_clusters.domain.states import AgentRole, ClusterType

_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

METADATA = {
    "id": text(
        "The blueprint's id. With the version it names the blueprint for ever.",
        100,
        required=True,
        regex=_IDENTIFIER,
        must="be 1 to 100 letters, digits, '.', '_' or '-' and begin with a letter or digit",
    ),
    "name": text("The name that people read.", required=True),
    "version": text('The version, as text: 1.10 stays "1.10". A stored version never changes.', 100, required=True),
    "author": optional_text("Who answers for it."),
    "description": optional_text("What clusters made from it are for.", 10_000),
    "tags": texts("Words to find it by."),
}

CLUSTER = {
    "type": text(
        "What kind of cluster it makes.",
        required=True,
        allowed=[str(each) for each in ClusterType],
    ),
    "min_workers": whole("The fewest agents of a cluster that is awake.", 0, MAX_COUNT, required=True),
    "max_workers": whole("The most agents of a cluster.", 1, MAX_COUNT, required=True),
    "default_workers": whole(
        "How many agents a new cluster starts; by default min_workers or the sum of the groups' minimums, the larger.",
        0,
        MAX_COUNT,
    ),
    "scaling": keys("When and how far the autoscaler moves the scalable groups.", SCALING, default={}),
    "delegation": keys("What one tree of delegated jobs may grow to.", DELEGATION, default={}),
    "driver": DRIVER,
}

AGENT_GROUP = {
    "role": text(
        "The group's place in the hierarchy; exactly one group is the supervisor.",
        required=True,
        allowed=[str(each) for each in AgentRole],
    ),
    "name": text("The group's name, unique in the blueprint. Jobs are addressed to it.", 100, required=True),
    "count": {
        "type": ["integer", "string"],
        "check_with": "count",
        "default": 1,
        "meta": {"description": 'How many agents: 2 is fixed; "0-5" is scalable and starts at its minimum.'},
    },
    "description": optional_text("What the group is for.", 10_000),
    "reports_to": text("The group it reports to, by name; by default the supervisor.", 100, nullable=True),
    "capabilities": texts("What jobs may ask for instead of a group's name."),
    "skills": texts("What its agents are good at, for people and for handlers to read."),
    "config": free("Anything the handler needs; handed to it as context.config. Any JSON mapping."),
    **WORK,
    **ENGINE,
}

_ANYTHING = ["string", "number", "boolean", "list", "dict"]
RESOURCES: dict[str, Rule] = {
    "memory": {
        "type": _ANYTHING,
        "meta": {"description": "The memory that the agents share: {size, retention}, or any data."},
    },
    "knowledge_base": {"type": _ANYTHING, "meta": {"description": "Where the agents look things up."}},
    "tools": {
        "type": "list",
        "maxlength": 100,
        "schema": {"type": ["string", "dict"]},
        "meta": {"description": "What the agents may use."},
    },
}

LIFECYCLE = {
    "hibernate_conditions": conditions(
        "A cluster goes to sleep when all that are stated hold.",
        {
            "idle_time": duration("No job has run or waited for so long."),
            "task_queue_empty": flag("No job waits; always needed, so false is refused."),
            "load_below": {
                "type": ["number", "string"],
                "check_with": "percent",
                "meta": {"description": "The load is below this percentage."},
            },
        },
    ),
    "destroy_conditions": conditions(
        "When a sleeping cluster is destroyed.",
        {
            "hibernated_duration": duration("It has slept for so long.", "positive_duration"),
            "manual_trigger": flag("Somebody asks for it."),
        },
    ),
    "reactivate_triggers": conditions(
        "What wakes a sleeping cluster.",
        {
            "new_task_received": flag("A job arrives."),
            "manual_trigger": flag("Somebody asks for it."),
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

ROLLOUT: dict[str, Rule] = {
    "max_parallel": {
        "type": ["integer", "string"],
        "check_with": "max_parallel",
        "default": "25%",
        "meta": {"description": "How many agents are replaced at once: a number, or a percentage of all, at least 1."},
    },
    "min_healthy_time": duration("How long a new agent has to be ready before it counts.", default=10),
    "progress_deadline": duration(
        "A version fails when nothing becomes better for so long.", "positive_duration", default=600
    ),
    "auto_revert": {**flag("Whether a version that fails is taken back."), "default": True},
}

MONITORING: dict[str, Rule] = {
    "metrics": texts("The metrics that people watch first."),
    "alerts": ALERTS,
}

BLUEPRINT = {
    "metadata": keys("Which blueprint this is.", METADATA, required=True),
    "cluster": keys("The bounds of a cluster made from it.", CLUSTER, required=True),
    "agents": {
        "type": "list",
        "minlength": 1,
        "maxlength": 100,
        "required": True,
        "schema": keys("One agent group.", AGENT_GROUP),
        "meta": {"description": "The agent groups; each owns one queue."},
    },
    "resources": keys("What all agents of a cluster share.", RESOURCES),
    "lifecycle": keys("When a cluster sleeps, wakes and ends.", LIFECYCLE),
    "monitoring": keys("What to watch.", MONITORING),
    "budget": keys("What a cluster may spend.", BUDGET, default={}),
    "rollout": keys("How agents are replaced when clusters get this version.", ROLLOUT, default={}),
}
