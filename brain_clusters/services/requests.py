"""What callers may say: the schemas of commands and jobs, the same for HTTP bodies and for queued commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brain_clusters.blueprints.validation import check
from brain_clusters.domain.commands import (
    Command,
    CreateCluster,
    DestroyCluster,
    HibernateCluster,
    ReactivateCluster,
    ScaleCluster,
    UpdateCluster,
)
from brain_clusters.domain.states import ClusterType, OperationKind
from brain_clusters.errors import InvalidInput

Schema = dict[str, dict[str, Any]]

_MOST_WORKERS = 10_000
_ID = {"type": "string", "regex": r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"}
_NAME = {"type": "string", "minlength": 1, "maxlength": 200}
_WORKERS = {"type": "integer", "min": 0, "max": _MOST_WORKERS}
_TAGS = {"type": "list", "maxlength": 50, "schema": {"type": "string", "minlength": 1, "maxlength": 100}}
_EDITABLE: Schema = {
    "min_workers": {**_WORKERS, "meta": {"description": "The fewest agents while the cluster is awake."}},
    "max_workers": {**_WORKERS, "min": 1, "meta": {"description": "The most agents."}},
    "description": {"type": "string", "maxlength": 10_000, "meta": {"description": "For people."}},
    "tags": {**_TAGS, "meta": {"description": "Words to filter by."}},
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
    "name": {**_NAME, "required": True, "meta": {"description": "For people; need not be unique."}},
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
UPDATE: Schema = {"name": {**_NAME, "meta": {"description": "For people."}}, **_EDITABLE}
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
JOB: Schema = {
    "to": {**_NAME, "excludes": "capability", "meta": {"description": "The agent group that is to do the job."}},
    "capability": {**_NAME, "excludes": "to", "meta": {"description": "What the group must be capable of."}},
    "payload": {
        "nullable": True,
        "meta": {"description": "What the handler is given: any JSON."},
    },
    "eta": {
        "type": "string",
        "check_with": "instant",
        "excludes": "delay",
        "meta": {"description": "Not to be begun before: ISO 8601 with an offset or Z, at most 365 days ahead."},
    },
    "delay": {
        "type": ["number", "string"],
        "check_with": "duration",
        "excludes": "eta",
        "meta": {"description": "Not to be begun before it has passed: a duration such as 5 minutes, or seconds."},
    },
}
BLUEPRINT: Schema = {
    "yaml": {
        "type": "string",
        "required": True,
        "minlength": 1,
        "meta": {"description": "The blueprint's text, as described in blueprints/README.md."},
    }
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
}


def validated(body: Any, schema: Schema, what: str) -> dict[str, Any]:
    """Return ``body`` when ``schema`` allows it; raise InvalidInput with every fault."""
    document, faults = check(body, schema)
    if faults:
        raise InvalidInput(f"{what} is not valid", faults)
    return dict(document)


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
    }
    command: Command = made[kind](cluster_id=cluster_id, **document)
    return command
