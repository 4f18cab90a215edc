"""What a pod is made of: a spec, the group's ``pod:`` section and the settings, as the JSON that Kubernetes takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from brain_clusters import __version__
from brain_clusters.config import Settings, resolve
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Resources, parse_memory
from brain_clusters.domain.specs import VISIBILITY_SECONDS
from brain_clusters.errors import PermanentError
from brain_clusters.genesis.driver import Kit
from brain_clusters.genesis.kubernetes.naming import (
    AGENT,
    AGENT_ID,
    CLUSTER,
    GROUP,
    STOP_SECONDS,
    Owner,
    label_value,
)

CONTAINER = "agent"
_REDIS_URL = "BRAIN_AGENT_REDIS_URL"
_SECRET = re.compile(r"secret:([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)/([A-Za-z0-9._-]{1,253})")
_NOTHING_TO_AGENTS = frozenset(("engine", "drain_timeout_seconds", "on_drain_timeout"))
# Linux takes no longer variable (MAX_ARG_STRLEN, with its name and the final NUL).
_LONGEST_VARIABLE = 131_072 - 100


class Given(Protocol):
    """What a pod is made with besides its spec: the part of a ``Kit`` that is needed where there is no host, too."""

    @property
    def settings(self) -> Settings:
        """As in ``Kit``."""

    @property
    def agent(self) -> Mapping[str, Any]:
        """As in ``Kit``."""

    @property
    def environ(self) -> Mapping[str, str]:
        """As in ``Kit``."""


def pod_manifest(spec: AgentSpec, kit: Kit, owner: Owner) -> dict[str, Any]:
    """Return the manifest of an agent's pod. Raises PermanentError for what no pod can be made of."""
    pod = spec.engine.pod
    labels = {
        **pod.get("labels", {}),
        "app.kubernetes.io/name": "brain-agent",
        **owner.labels(),
        CLUSTER: label_value(spec.cluster_id),
        GROUP: label_value(spec.group_name),
        AGENT: label_value(spec.agent_id),
    }
    annotations = {**pod.get("annotations", {}), AGENT_ID: spec.agent_id, STOP_SECONDS: str(_stop_seconds(spec))}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": owner.pod_name(spec.agent_id), "labels": labels, "annotations": annotations},
        "spec": pod_spec(spec, kit),
    }


def _stop_seconds(spec: AgentSpec) -> int:
    """Return how long a stopping agent may finish what it does: for ever, unless its group says otherwise."""
    return int(spec.drain_timeout_seconds) if spec.on_drain_timeout == "stop" else VISIBILITY_SECONDS


def pod_spec(spec: AgentSpec, kit: Given) -> dict[str, Any]:
    """Return the ``spec`` of an agent's pod. Raises PermanentError for what no pod can be made of."""
    pod = spec.engine.pod
    volumes, mounts = _volumes(pod.get("volumes", ()))
    container = {
        "name": CONTAINER,
        "image": spec.engine.image or kit.settings.agent_image or f"brain-clusters:{__version__}",
        "command": ["python", "-P", "-m", "brain_clusters.agent.alone"],
        "env": [*_environment(spec.engine.environment, kit.environ), *_own_environment(spec, kit)],
        "resources": _resources(spec.engine.resources),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": pod.get("read_only", True),
        },
    }
    if "image_pull_policy" in pod:
        container["imagePullPolicy"] = pod["image_pull_policy"]
    return {
        **_placement(pod),
        "restartPolicy": "Never",
        # For deletions by others, such as a drained node: they wait for a busy agent as long as a scale-down may.
        "terminationGracePeriodSeconds": max(1, int(spec.drain_timeout_seconds)),
        "automountServiceAccountToken": False,
        # Or the agent is process 1, which a SIGTERM that comes before Celery listens does not end.
        "shareProcessNamespace": True,
        # Or the address of every service of the namespace is in its environment.
        "enableServiceLinks": False,
        "securityContext": _security(pod),
        "containers": [container],
        "volumes": volumes,
    }


def _security(pod: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if "run_as_user" in pod:
        found["runAsUser"] = pod["run_as_user"]
    if "fs_group" in pod:
        found["fsGroup"] = pod["fs_group"]
    return found


def _placement(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return where it may run, and under whose name."""
    named = {
        "service_account": "serviceAccountName", "node_selector": "nodeSelector",
        "priority_class": "priorityClassName", "runtime_class": "runtimeClassName",
    }  # fmt: skip
    found: dict[str, Any] = {theirs: pod[ours] for ours, theirs in named.items() if ours in pod}
    if "tolerations" in pod:
        found["tolerations"] = [_toleration(one) for one in pod["tolerations"]]
    if "image_pull_secrets" in pod:
        found["imagePullSecrets"] = [{"name": name} for name in pod["image_pull_secrets"]]
    if pod.get("host_network"):
        found |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return found


def _toleration(stated: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in stated.items() if key != "seconds"}
    found.setdefault("operator", "Equal" if "value" in stated else "Exists")
    if "seconds" in stated:
        found["tolerationSeconds"] = stated["seconds"]
    return found


def _resources(asked: Resources) -> dict[str, Any]:
    """Return requests that equal the limits: what is asked for is there, and nothing beyond it is counted on."""
    amounts = {}
    if asked.cpu is not None:
        amounts["cpu"] = f"{max(1, round(asked.cpu * 1000))}m"
    if asked.memory_bytes is not None:
        amounts["memory"] = str(asked.memory_bytes)
    return {"requests": amounts, "limits": amounts} if amounts else {}


def _volumes(stated: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (volumes, where they are mounted). /tmp can be written to, whatever else can."""
    volumes, mounts = [], []
    for number, one in enumerate(stated):
        name = f"volume-{number}"
        volumes.append({"name": name, **_source(one)})
        mounts.append({"name": name, "mountPath": one["mount"], "readOnly": one.get("read_only", False)})
    if all(one["mount"] != "/tmp" for one in stated):  # noqa: S108 - it is a pod's own
        volumes.append({"name": "tmp", "emptyDir": {}})
        mounts.append({"name": "tmp", "mountPath": "/tmp"})  # noqa: S108
    return volumes, mounts


def _source(stated: Mapping[str, Any]) -> dict[str, Any]:
    if "config_map" in stated:
        return {"configMap": {"name": stated["config_map"]}}
    if "secret" in stated:
        return {"secret": {"secretName": stated["secret"]}}
    if "claim" in stated:
        return {"persistentVolumeClaim": {"claimName": stated["claim"]}}
    return {"emptyDir": {"sizeLimit": str(parse_memory(stated["empty_dir"]))}}


# --- the environment --------------------------------------------------------------------------------------------


def _environment(stated: Mapping[str, str], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the group's variables; those of Secrets by reference, others as this host finds them."""
    found = []
    for name, text in stated.items():
        secret = _SECRET.fullmatch(text)
        if secret is not None:
            found.append(_from_secret(name, secret[1], secret[3]))
            continue
        if text.startswith("secret:"):
            raise PermanentError(f"environment.{name}: {text} is not of the form secret:NAME/KEY")
        try:
            found.append(_variable(name, resolve(text, environ)))
        except ValueError as exc:
            raise PermanentError(f"environment.{name}: {exc}") from exc
    return found


def _own_environment(spec: AgentSpec, kit: Given) -> list[dict[str, Any]]:
    """Return what ``agent.alone`` reads. How its pod is made is nothing to an agent."""
    told = {key: value for key, value in spec.as_dict().items() if key not in _NOTHING_TO_AGENTS}
    given = json.dumps({"spec": told, "config": {**kit.agent, "redis_url": ""}})
    if len(given.encode()) > _LONGEST_VARIABLE:
        raise PermanentError(
            f"what its group states takes {len(given)} bytes, and an agent is given at most {_LONGEST_VARIABLE}:"
            " move long texts of config or llm into a file"
        )
    return [_variable("BRAIN_AGENT", given), _redis_variable(spec, kit)]


def _redis_variable(spec: AgentSpec, kit: Given) -> dict[str, Any]:
    secret = kit.settings.kubernetes_secret
    if secret is not None:
        return _from_secret(_REDIS_URL, secret, _REDIS_URL)
    url = kit.settings.agent_redis_url or str(kit.agent["redis_url"])
    if not spec.engine.pod.get("host_network") and is_loopback(urlsplit(url).hostname or ""):
        raise PermanentError(
            "Redis is on the loopback address of this machine, where its pod does not reach it; set"
            " BRAIN_AGENT_REDIS_URL or BRAIN_KUBERNETES_SECRET to an address that it reaches"
        )
    return _variable(_REDIS_URL, url)


def _variable(name: str, value: str) -> dict[str, Any]:
    # Kubernetes replaces $(NAME) in values, and takes $$ for one $.
    return {"name": name, "value": value.replace("$", "$$")}


def _from_secret(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
