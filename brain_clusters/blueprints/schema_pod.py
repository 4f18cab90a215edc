"""The part of the blueprint format that says how a group's agents run as pods. Words are those of Kubernetes.

What could reach beyond a pod (privileges, paths of the node, tokens of service accounts) is no part of it: who may
store a blueprint need not be who rules the cluster.
"""

from __future__ import annotations

from brain_clusters.blueprints.rules import Rule, flag, keys, text, whole

_SUBDOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_KEY = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_OTHERS_KEY = rf"(?!brain-clusters/|app\.kubernetes\.io/(name|managed-by)$){_KEY}"
_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_MOST_ID = 2**31 - 1


def _name(description: str, **rules: object) -> Rule:
    must = "be a name of Kubernetes: lower-case letters, digits, '-' and '.', a letter or digit first and last"
    return text(description, 253, regex=_SUBDOMAIN, must=must, **rules)


def _list_of(description: str, entry: Rule) -> Rule:
    return {"type": "list", "maxlength": 50, "schema": entry, "meta": {"description": description}}


def _labels(description: str, key: str, longest: int, value: str | None = None) -> Rule:
    """Return the rule of a mapping from keys of Kubernetes to texts."""
    what = "a label of Kubernetes: letters, digits, '-', '_' and '.'"
    entry: Rule = {"type": "string", "maxlength": longest}
    if value is not None:
        entry |= {"regex": value, "meta": {"must": f"be the value of {what}"}}
    must = f"be {what}, with a domain and '/' before it or not; those that begin with brain-clusters/ are ours"
    keysrules = {"type": "string", "regex": key, "meta": {"must": must}}
    return {
        "type": "dict", "maxlength": 50, "keysrules": keysrules, "valuesrules": entry,
        "meta": {"description": description},
    }  # fmt: skip


TOLERATION: dict[str, Rule] = {
    "key": text("The taint's key; every taint without it.", 317, regex=_KEY, must="be the key of a taint"),
    "operator": text("Equal compares the value, too; by default where there is one.", allowed=["Equal", "Exists"]),
    "value": {"type": "string", "regex": _VALUE, "meta": {"description": "The taint's value.", "must": "be a label's"}},
    "effect": text(
        "Which effect is tolerated; every one without it.", allowed=["NoSchedule", "PreferNoSchedule", "NoExecute"]
    ),
    "seconds": whole("For how long NoExecute is tolerated; for ever without it.", 0, 10**9),
}
VOLUME: dict[str, Rule] = {
    "mount": text(
        "Where it is in the container.",
        500,
        required=True,
        regex=r"/[^:\s]*[^:\s/]",
        must="be an absolute path such as /app",
    ),
    "read_only": flag("Whether it cannot be written to."),
    "config_map": _name("The ConfigMap that it shows."),
    "secret": _name("The Secret that it shows."),
    "claim": _name("The PersistentVolumeClaim that it is."),
    "empty_dir": {
        "type": ["number", "string"],
        "check_with": "memory",
        "meta": {"description": "Room of its own that ends with it: its size, such as 1Gi."},
    },
}
POD: Rule = keys(
    "How its pods are run.",
    {
        "service_account": _name("Their service account; its token is not mounted."),
        "image_pull_policy": text("When the image is pulled.", allowed=["Always", "IfNotPresent", "Never"]),
        "image_pull_secrets": _list_of("The Secrets by which the image is pulled.", _name("A Secret.")),
        "node_selector": _labels("The labels of the nodes that they may run on.", _KEY, 63, _VALUE),
        "tolerations": _list_of("The taints of nodes that they tolerate.", keys("A toleration.", TOLERATION)),
        "priority_class": _name("Their PriorityClass."),
        "runtime_class": _name("Their RuntimeClass."),
        "labels": _labels("Labels besides ours.", _OTHERS_KEY, 63, _VALUE),
        "annotations": _labels("Annotations besides ours.", _OTHERS_KEY, 10_000),
        "volumes": _list_of(
            "What is mounted.", keys("A volume: where, and one of what it holds.", VOLUME, check_with="volume")
        ),
        "host_network": flag("Whether they share the network of their node."),
        "run_as_user": whole("The user they run as; the image's own, by its number, without it.", 1, _MOST_ID),
        "fs_group": whole("The group that their volumes belong to.", 1, _MOST_ID),
        "read_only": flag("Whether their files but /tmp and volumes cannot be written to; so it is without it."),
    },
)
