"""What callers may say: the schemas of commands and jobs, the same for HTTP bodies and for queued commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brain_clusters.blueprints.validation import MAX_FAULTS, check, unstorable
from brain_clusters.domain.commands import (
    Command,
    CreateCluster,
    DestroyCluster,
    HibernateCluster,
    ReactivateCluster,
    RolloutCluster,
    ScaleCluster,
    UpdateCluster,
)
from brain_clusters.domain.failures import LONGEST_KEY
from brain_clusters.domain.jobs import Priority
from brain_clusters.domain.states import ClusterType, OperationKind
from brain_clusters.errors import Fault, InvalidInput

Schema = dict[str, dict[str, Any]]

_MOST_WORKERS = 10_000
_ID = {"type": "string", "regex": r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"}
NAME = {"type": "string", "minlength": 1, "maxlength": 200}
_VERSION = {"type": "string", "minlength": 1, "maxlength": 100}
_WORKERS = {"type": "integer", "min": 0, "max": _MOST_WORKERS}
TAGS = {"type": "list", "maxlength": 50, "schema": {"type": "string", "minlength": 1, "maxlength": 100}}
_EDITABLE: Schema = {
    "min_workers": {**_WORKERS, "meta": {"description": "The fewest agents while the cluster is awake."}},
    "max_workers": {**_WORKERS, "min": 1, "meta": {"description": "The most agents."}},
    "description": {"type": "string", "maxlength": 10_000, "meta": {"description": "For people."}},
    "tags": {**TAGS, "meta": {"description": "Words to filter by."}},
    "budget_per_day": {
        "type": "number",
        "min": 0,
        "max": 1_000_000_000,
        "meta": {"description": "The most that the cluster may spend in a day (UTC), in place of its blueprint's."},
    },
    "config": {"type": "dict", "meta": {"description": "Any JSON of yours, kept with the cluster."}},
}

CREATE: Schema = {
    "blueprint_id": {**_ID, "required": True, "meta": {"description": "The blueprint to make the cluster from."}},
    "version": {**_VERSION, "meta": {"description": "The blueprint's version; the newest without it."}},
    "name": {**NAME, "required": True, "meta": {"description": "For people; need not be unique."}},
    "id": {**_ID, "meta": {"description": "The cluster's id; made from the name without it."}},
    "type": {
        "type": "string",
        "allowed": [str(kind) for kind in ClusterType],
        "meta": {"description": "What the cluster is for; the blueprint's without it."},
    },
    "target_workers": {**_WORKERS, "meta": {"description": "All agents to start with, the supervisor included."}},
    "parent_cluster_id": {**_ID, "meta": {"description": "The cluster that this one belongs to."}},
    **_EDITABLE,
}
UPDATE: Schema = {"name": {**NAME, "meta": {"description": "For people."}}, **_EDITABLE}
SCALE: Schema = {
    "target_workers": {**_WORKERS, "meta": {"description": "All agents, the supervisor included."}},
    "groups": {
        "type": "dict",
        "keysrules": {"type": "string", "minlength": 1, "maxlength": 200},
        "valuesrules": _WORKERS,
        "meta": {"description": "Agents of single groups, by name."},
    },
}
NOTHING: Schema = {}
_DURATION = {"type": ["number", "string"], "check_with": "duration"}
ROLLOUT: Schema = {
    "version": {**_VERSION, "meta": {"description": "The version to go to; the newest without it."}},
    "max_parallel": {
        "type": ["integer", "string"],
        "check_with": "max_parallel",
        "meta": {"description": "How many agents are replaced at once: a number or a percentage of all."},
    },
    "min_healthy_time": {
        **_DURATION,
        "meta": {"description": "How long a new agent has to be ready before it counts."},
    },
    "progress_deadline": {
        "type": ["number", "string"],
        "check_with": "positive_duration",
        "meta": {"description": "The version fails when nothing becomes better for so long."},
    },
    "auto_revert": {"type": "boolean", "meta": {"description": "Whether a version that fails is taken back."}},
}
UNDO: Schema = {"version": {**_VERSION, "meta": {"description": "The version to go back to; the last without it."}}}
PLAN: Schema = {
    "documents": {
        "type": "list",
        "required": True,
        "minlength": 1,
        "maxlength": 100,
        "schema": {"type": "string", "minlength": 1},
        "meta": {"description": "YAML texts: blueprints and cluster files, one or several documents each."},
    },
}
APPLY: Schema = {
    **PLAN,
    "fingerprint": {
        "type": "string",
        "minlength": 1,
        "maxlength": 100,
        "meta": {"description": "Of the plan that was looked at: 409 when it would be another one by now."},
    },
}
_JOB_TERMS: Schema = {
    "priority": {
        "type": "string",
        "allowed": [str(priority) for priority in Priority],
        "meta": {"description": "high comes before all that waits, low after it; normal without it."},
    },
    "eta": {
        "type": "string",
        "check_with": "instant",
        "excludes": "delay",
        "meta": {"description": "Not to be begun before: ISO 8601 with an offset or Z, at most 365 days ahead."},
    },
    "delay": {
        **_DURATION,
        "excludes": "eta",
        "meta": {"description": "Not to be begun before it has passed: a duration such as 5 minutes, or seconds."},
    },
    "timeout": {
        "type": ["number", "string"],
        "check_with": "positive_duration",
        "meta": {"description": "The longest that one attempt may take; the group's without it."},
    },
    "max_attempts": {
        "type": "integer",
        "min": 1,
        "max": 1000,
        "meta": {"description": "Attempts, whether they raise or their agent dies; the group's without it."},
    },
    "backoff": {
        **_DURATION,
        "meta": {"description": "The wait before the second attempt, doubled before each further one."},
    },
    "backoff_max": {**_DURATION, "meta": {"description": "The longest wait between two attempts."}},
    "expires": {
        "type": ["number", "string"],
        "check_with": "end",
        "meta": {"description": "Not to be begun after: a duration from now, or ISO 8601 with an offset."},
    },
}
_KEY = {"type": "string", "minlength": 1, "maxlength": 255}
_PAYLOAD = {"nullable": True, "meta": {"description": "What the handler is given: any JSON."}}
JOB: Schema = {
    "to": {**NAME, "excludes": "capability", "meta": {"description": "The agent group that is to do the job."}},
    "capability": {**NAME, "excludes": "to", "meta": {"description": "What the group must be capable of."}},
    "payload": _PAYLOAD,
    **_JOB_TERMS,
    "key": {**_KEY, "meta": {"description": "Of jobs with the same key there is one in a cluster, while it is kept."}},
}
ROUTED_JOB: Schema = {
    "capability": {**NAME, "required": True, "meta": {"description": "What is asked for, of any cluster."}},
    "payload": _PAYLOAD,
    **_JOB_TERMS,
}
MOST_JOBS = 10_000
_GRACE: Schema = {
    "grace": {**_DURATION, "meta": {"description": "How long a running job has to end by itself; 10 s without it."}}
}
CANCEL: Schema = _GRACE
JOB_FILTERS: Schema = {
    "group": NAME,
    "capability": NAME,
    "priority": {"type": "string", "allowed": [str(priority) for priority in Priority]},
    "error": {"type": "string", "minlength": 1, "maxlength": LONGEST_KEY},
    "parent": NAME,
    "search": {**NAME, "meta": {"description": "The begin of an id, or the key that the job was sent with."}},
    "since": {"type": "string", "check_with": "instant"},
    "until": {"type": "string", "check_with": "instant"},
}
CANCEL_MANY: Schema = {
    **_GRACE,
    **{name: rule for name, rule in JOB_FILTERS.items() if name != "error"},
    "status": {"type": "string", "allowed": ["queued", "running"]},
}
LETTERS: Schema = {
    "error_key": {"type": "string", "minlength": 1, "maxlength": LONGEST_KEY},
    "group": NAME,
    "since": {"type": "string", "check_with": "instant"},
}
TREAT_LETTERS: Schema = {**LETTERS, "limit": {"type": "integer", "min": 1, "max": 100_000, "default": 10_000}}
BLUEPRINT: Schema = {
    "yaml": {
        "type": "string",
        "required": True,
        "minlength": 1,
        "meta": {"description": "The blueprint's text, as described in blueprints/README.md."},
    }
}
STORE: Schema = {
    **BLUEPRINT,
    "rollout": {
        "type": "boolean",
        "default": False,
        "meta": {"description": "Roll it out to the clusters of this blueprint, too."},
    },
}
REPLAY: Schema = {
    **BLUEPRINT,
    "limit": {
        "type": "integer",
        "min": 1,
        "max": 10_000,
        "default": 1000,
        "meta": {"description": "How many of the newest decisions are made again."},
    },
}

BODIES: dict[OperationKind, Schema] = {
    OperationKind.CREATE: CREATE,
    OperationKind.UPDATE: UPDATE,
    OperationKind.SCALE: SCALE,
    OperationKind.HIBERNATE: NOTHING,
    OperationKind.REACTIVATE: NOTHING,
    OperationKind.DESTROY: NOTHING,
    OperationKind.ROLLOUT: ROLLOUT,
}


def validated(body: Any, schema: Schema, what: str) -> dict[str, Any]:
    """Return ``body`` when ``schema`` allows it; raise InvalidInput with every fault."""
    document, faults = check(body, schema)
    if faults:
        raise InvalidInput(f"{what} is not valid", faults)
    return dict(document)


def validated_jobs(body: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the jobs of a list; raise InvalidInput with every fault, as far as they are told, each with its place.

    Most jobs of a list differ in payload and key alone. So the rest is judged once for all that say the same.
    """
    if not 1 <= len(body) <= MOST_JOBS:
        raise InvalidInput("the list is not valid", [Fault("", f"give 1 to {MOST_JOBS} jobs, not {len(body)}")])
    faults: list[Fault] = []
    judged: dict[str, tuple[dict[str, Any], list[Fault]]] = {}
    found = []
    for place, job in enumerate(body):
        document, wrong = _judged_job(job, judged)
        faults += [Fault(f"/{place}{fault.pointer}", fault.message) for fault in wrong]
        if len(faults) >= MAX_FAULTS:
            break
        found.append(document)
    if faults:
        raise InvalidInput("the jobs are not valid", faults[:MAX_FAULTS])
    return found


def _judged_job(job: Any, judged: dict[str, tuple[dict[str, Any], list[Fault]]]) -> tuple[dict[str, Any], list[Fault]]:
    if not isinstance(job, dict):
        return check(job, JOB)
    own = {name: job[name] for name in ("payload", "key") if name in job}
    rest = {name: value for name, value in job.items() if name not in own}
    said = repr(sorted(rest.items()))
    if said not in judged:
        judged[said] = check(rest, JOB)
    document, faults = judged[said]
    wrong = list(unstorable(own))
    if "key" in own and not (isinstance(own["key"], str) and 1 <= len(own["key"]) <= 255):
        wrong.append(Fault("/key", "'key' must be text of 1 to 255 characters"))
    return {**document, **own}, [*faults, *wrong]


def parse_command(kind: OperationKind, cluster_id: str | None, body: Any) -> Command:
    """Return the command that an HTTP body asks for; raise InvalidInput with every fault."""
    document = validated({} if body is None else body, BODIES[kind], "the request body")
    return _command(kind, cluster_id, document)


def parse_queued_command(kind: OperationKind, arguments: Mapping[str, Any]) -> Command:
    """Return the command that a queued message asks for: the HTTP body's keys, and ``cluster_id``."""
    schema = BODIES[kind]
    if kind is not OperationKind.CREATE:
        schema = {"cluster_id": {**_ID, "required": True}, **schema}
    document = validated(dict(arguments), schema, f"what was sent to brain.lifecycle.{kind}")
    return _command(kind, document.pop("cluster_id", None), document)


def _command(kind: OperationKind, cluster_id: str | None, document: dict[str, Any]) -> Command:
    if "tags" in document:
        document["tags"] = tuple(document["tags"])
    if kind is OperationKind.CREATE:
        if "type" in document:
            document["type"] = ClusterType(document["type"])
        return CreateCluster(**document)
    assert cluster_id is not None  # noqa: S101 - the URL or the schema has it
    made: dict[OperationKind, type[Any]] = {
        OperationKind.UPDATE: UpdateCluster,
        OperationKind.SCALE: ScaleCluster,
        OperationKind.HIBERNATE: HibernateCluster,
        OperationKind.REACTIVATE: ReactivateCluster,
        OperationKind.DESTROY: DestroyCluster,
        OperationKind.ROLLOUT: RolloutCluster,
    }
    command: Command = made[kind](cluster_id=cluster_id, **document)
    return command
