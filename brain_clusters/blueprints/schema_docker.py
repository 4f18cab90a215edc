"""The part of the blueprint format that says how the containers of a group are run by the Docker driver."""

from __future__ import annotations

from brain_clusters.blueprints.rules import Rule, flag, keys, text

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
# What Docker gives every container unless it is told otherwise: others would let it out of itself. Source: "Runtime
# privilege and Linux capabilities" of docker run's reference.
_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_LISTED = {"type": "list", "maxlength": 50}


def _texts(description: str, regex: str, must: str, longest: int = 500) -> Rule:
    entry = {"type": "string", "maxlength": longest, "regex": regex, "meta": {"must": must}}
    return {**_LISTED, "schema": entry, "meta": {"description": description}}


DOCKER = keys(
    "How its containers are run.",
    {
        "pull": text(
            "When the image is fetched: if the engine has none of that name, before each start, or never.",
            allowed=["missing", "always", "never"],
        ),
        "network": text(
            "The network: host, or a name; by default BRAIN_DOCKER_NETWORK.",
            regex=_NAME,
            must="be `host` or the name of a network",
        ),
        "user": text(
            "Who the agent is in its container; by default who the image says.",
            regex=r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?",
            must="be a name or number, or USER:GROUP",
        ),
        "read_only": flag("Nothing but /tmp and volumes can be written to."),
        "volumes": _texts(
            "Folders of the engine's machine, or named volumes.",
            rf"(/[^:]*|{_NAME}):/[^:]+(:r[ow])?",
            "be SOURCE:TARGET or SOURCE:TARGET:ro, TARGET an absolute path, SOURCE one or the name of a volume",
            1000,
        ),
        "labels": {
            "type": "dict",
            "maxlength": 50,
            "keysrules": {
                "type": "string",
                "maxlength": 200,
                "regex": r"(?!io\.brain-clusters\.)[A-Za-z0-9][A-Za-z0-9_./-]*",
                "meta": {"must": "be letters, digits, '.', '_', '/' and '-', and not begin with io.brain-clusters."},
            },
            "valuesrules": {"type": "string", "maxlength": 1000},
            "meta": {"description": "Labels of its containers, besides ours."},
        },
        "extra_hosts": {
            "type": "dict",
            "maxlength": 50,
            "keysrules": {"type": "string", "regex": _NAME, "meta": {"must": "be the name of a host"}},
            "valuesrules": {
                "type": "string",
                "regex": r"host-gateway|[0-9A-Fa-f.:]+",
                "meta": {"must": "be an address, or `host-gateway`"},
            },
            "meta": {"description": "Addresses of names, as in /etc/hosts."},
        },
        "cap_add": _texts(
            "Linux capabilities that its containers keep; all others are dropped.",
            "|".join(_CAPABILITIES),
            f"be one of {', '.join(_CAPABILITIES)}",
            50,
        ),
        "shm_size": {
            "type": ["number", "string"],
            "check_with": "memory",
            "meta": {"description": "The size of /dev/shm: 256Mi; 64MiB by default."},
        },
        "gpus": {
            "type": ["integer", "string"],
            "check_with": "gpus",
            "meta": {"description": "How many GPUs: 1, 2, ... or all."},
        },
    },
)
