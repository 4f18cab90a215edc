"""The part of the blueprint format that says which engine runs a group's agents, and how."""

from __future__ import annotations

from brain_clusters.blueprints.rules import Rule, keys, text
from brain_clusters.blueprints.schema_docker import DOCKER
from brain_clusters.blueprints.schema_pod import POD

_SIZE = ["number", "string"]

DRIVER = {
    **text("The engine that runs its agents: process, docker, kubernetes, remote, or an installed one.", 63),
    "check_with": "driver",
}

ENGINE: dict[str, Rule] = {
    "driver": DRIVER,
    "image": text(
        "The image of containers and pods; by default BRAIN_AGENT_IMAGE.",
        500,
        regex=r"[^\s]+",
        must="be the name of an image, without blanks",
    ),
    "resources": keys(
        "What one agent needs of its engine, and is limited to where the engine can limit.",
        {
            "cpu": {"type": _SIZE, "check_with": "cpu", "meta": {"description": 'Cores: 0.5, 2 or "500m".'}},
            "memory": {"type": _SIZE, "check_with": "memory", "meta": {"description": "Memory: 256Mi, 1GB."}},
        },
    ),
    "environment": {
        "type": "dict",
        "maxlength": 100,
        "keysrules": {
            "type": "string",
            "regex": r"(?!BRAIN_)[A-Za-z_][A-Za-z0-9_]{0,99}",
            "meta": {"must": "be the name of a variable: letters, digits and _, and not begin with BRAIN_"},
        },
        "valuesrules": {"type": "string", "maxlength": 10_000},
        "meta": {
            "description": "Variables of its agents: texts, or where these are (env:NAME, file:PATH, secret:NAME/KEY)."
        },
    },
    "docker": DOCKER,
    "pod": POD,
}
