"""A cluster as objects of Kubernetes that need none of our hosts: a Deployment for each group, scaled by KEDA.

Agents are the same, and have ids that nobody gave them: the name of their pod, and something new at each start. They
say that they are there, and one whose beats cease is given up (``services.alone``), so the control plane has to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from brain_clusters.broker import names
from brain_clusters.config import Settings
from brain_clusters.domain.budgets import effective
from brain_clusters.domain.planning import distribute
from brain_clusters.domain.sleeping import sleeps_after
from brain_clusters.domain.specs import AgentGroup, Blueprint, ScalingPolicy, slug
from brain_clusters.domain.states import ClusterType
from brain_clusters.errors import InvalidInput
from brain_clusters.genesis.kubernetes.manifest import pod_spec
from brain_clusters.services.specs import spec_of

# An agent whose beats ceased for so many seconds is given up, and its jobs are given to others. Longer than a failover
# of Redis takes, and than code should keep Python from running its other threads.
LEASE_SECONDS = 30.0
Manifest = dict[str, Any]

_LONGEST_NAME = 52  # what a Deployment's pods append still fits into a host name's 63
_LONGEST_WINDOW_SECONDS = 3600
_LONGEST_PERIOD_SECONDS = 1800
# One agent will do for any number of jobs that wait for their time.
_ONE_AGENT = "1000000"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects are to live, and what they find there.

    settings: with the image of agents, and as ``kubernetes_secret`` the name of the Secret with BRAIN_AGENT_REDIS_URL
    and, for KEDA, address, username and password. agent: what every agent is given, as in ``genesis.driver.Kit``.
    namespace: None leaves it to kubectl. redis_database: the number at the end of the URL.
    """

    settings: Settings
    agent: Mapping[str, Any]
    namespace: str | None = None
    redis_database: int = 0

    @property
    def secret(self) -> str:
        """The name of the Secret."""
        return str(self.settings.kubernetes_secret)

    @property
    def environ(self) -> Mapping[str, str]:
        """Nothing: no host's variables are written into a file."""
        return {}


def manifests(
    cluster_id: str, blueprint: Blueprint, place: Place, *, budget_per_day: float | None = None
) -> Iterator[Manifest]:
    """Yield the objects of a cluster. Its groups with ``celery`` are left out: they are somebody else's workers.

    budget_per_day: the cluster's own. Raises InvalidInput for what a pod cannot have.
    """
    budgeted = replace(blueprint, budget=effective(blueprint.budget, budget_per_day))
    groups = [group for group in blueprint.groups if group.celery is None]
    if any(group.count.scalable for group in groups):
        yield _authentication(cluster_id, place)
    for group in groups:
        yield _deployment(cluster_id, budgeted, group, place)
        if group.count.scalable:
            yield _scaled_object(cluster_id, blueprint, group, place)


def _metadata(cluster_id: str, group: AgentGroup | None, place: Place) -> dict[str, Any]:
    namespace = {} if place.namespace is None else {"namespace": place.namespace}
    return {"name": _name(cluster_id, group), **namespace, "labels": _labels(cluster_id, group)}


def _name(cluster_id: str, group: AgentGroup | None) -> str:
    """Return a name that Kubernetes takes; where the words had to be changed or cut, a hash keeps it apart."""
    full = f"brain-{cluster_id}" + (f"-{group.slug}" if group is not None else "")
    name = slug(full)[:_LONGEST_NAME].strip("-")
    return name if name == full else f"{name[: _LONGEST_NAME - 7].strip('-')}-{sha256(full.encode()).hexdigest()[:6]}"


def _labels(cluster_id: str, group: AgentGroup | None) -> dict[str, str]:
    component = {} if group is None else {"app.kubernetes.io/component": group.slug[:63].strip("-")}
    return {
        "app.kubernetes.io/name": "brain-clusters-exported",
        "app.kubernetes.io/instance": _name(cluster_id, None),
        **component,
        "app.kubernetes.io/part-of": "brain-clusters",
    }


# --- agents -----------------------------------------------------------------------------------------------------


def _deployment(cluster_id: str, blueprint: Blueprint, group: AgentGroup, place: Place) -> Manifest:
    metadata = _metadata(cluster_id, group, place)
    stated = group.engine.pod
    annotations = {"annotations": stated["annotations"]} if "annotations" in stated else {}
    # KEDA owns the number of a group that is scaled; stating it would undo that with each `kubectl apply`.
    replicas = {} if group.count.scalable else {"replicas": group.count.minimum}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            **replicas,
            "selector": {"matchLabels": metadata["labels"]},
            "template": {
                "metadata": {"labels": {**stated.get("labels", {}), **metadata["labels"]}, **annotations},
                "spec": _pod(cluster_id, blueprint, group, place),
            },
        },
    }


def _pod(cluster_id: str, blueprint: Blueprint, group: AgentGroup, place: Place) -> dict[str, Any]:
    spec = spec_of("", cluster_id, group, blueprint)
    variables = {name: _by_secret(group, name, text, place) for name, text in group.engine.environment.items()}
    pod = pod_spec(replace(spec, engine=replace(group.engine, environment=variables)), place)
    del pod["restartPolicy"]  # a Deployment's pods are begun anew, each time with another id
    named = {"name": "BRAIN_AGENT_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    [container] = pod["containers"]
    return {**pod, "containers": [{**container, "env": [*container["env"], named]}]}


def _by_secret(group: AgentGroup, name: str, text: str, place: Place) -> str:
    """Return a variable of a group as it is found without a host: what that has in its environment, the Secret has."""
    kind, _, rest = text.partition(":")
    if kind == "file":
        raise InvalidInput(
            f"group {group.name!r}: {name} is {text}, and a pod has no files of a host; write secret:NAME/KEY instead"
        )
    return f"secret:{place.secret}/{rest}" if kind == "env" else text


# --- KEDA, https://keda.sh/docs/latest/reference/scaledobject-spec ----------------------------------------------


def _authentication(cluster_id: str, place: Place) -> Manifest:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(cluster_id, None, place),
        "spec": {
            "secretTargetRef": [
                {"parameter": key, "name": place.secret, "key": key} for key in ("address", "username", "password")
            ]
        },
    }


def _scaled_object(cluster_id: str, blueprint: Blueprint, group: AgentGroup, place: Place) -> Manifest:
    policy = blueprint.scaling
    persistent = blueprint.cluster_type is ClusterType.PERSISTENT
    cooldown = sleeps_after(blueprint, persistent=persistent)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(cluster_id, group, place),
        "spec": {
            "scaleTargetRef": {"name": _name(cluster_id, group)},
            "minReplicaCount": group.count.minimum,
            "maxReplicaCount": min(group.count.maximum, blueprint.max_workers),
            "pollingInterval": max(1, round(policy.polling_interval_seconds)),
            "cooldownPeriod": math.ceil(policy.hibernate_after_seconds if cooldown is None else cooldown),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(policy)}},
            "triggers": [*_lists(cluster_id, group, policy, place), *_schedules(blueprint, group)],
        },
    }


def _lists(cluster_id: str, group: AgentGroup, policy: ScalingPolicy, place: Place) -> Iterator[dict[str, Any]]:
    queue = names.group_queue(cluster_id, group.slug)
    jobs_per_agent = str(policy.queue_per_slot * group.concurrency)
    for key in names.priority_lists(queue):
        yield _length(cluster_id, key, jobs_per_agent, policy.activation_threshold, place)
    # A sorted set, whose size KEDA asks for likewise. What waits there for its time, an agent has to be there to take.
    yield _length(cluster_id, names.eta_key(queue), _ONE_AGENT, 0, place)


def _length(cluster_id: str, key: str, per_agent: str, activation: int, place: Place) -> dict[str, Any]:
    return {
        "type": "redis",
        "metadata": {
            "listName": key,
            "listLength": per_agent,
            "activationListLength": str(activation),
            "databaseIndex": str(place.redis_database),
        },
        "authenticationRef": {"name": _name(cluster_id, None)},
    }


def _schedules(blueprint: Blueprint, group: AgentGroup) -> Iterator[dict[str, Any]]:
    for entry in blueprint.scaling.schedule:
        # An entry speaks of the whole cluster; while nothing waits, its agents are shared among the groups like this.
        replicas = distribute(min(entry.min_workers, blueprint.max_workers), blueprint.groups)[group.name]
        if replicas > group.count.minimum:
            times = {"timezone": entry.timezone, "start": entry.start, "end": entry.end}
            yield {"type": "cron", "metadata": {**times, "desiredReplicas": str(replicas)}}


def _behavior(policy: ScalingPolicy) -> dict[str, Any]:
    """Return the bounds on growth, and the window of the way down where it is stated; without it, it is 300 s."""
    period = min(math.ceil(policy.scale_up_period_seconds), _LONGEST_PERIOD_SECONDS)
    bounds = {"Percent": math.floor(policy.scale_up_max_percent), "Pods": policy.scale_up_max_workers}
    policies = [{"type": kind, "value": value, "periodSeconds": period} for kind, value in bounds.items() if value > 0]
    up: dict[str, Any] = {"stabilizationWindowSeconds": _window(policy.scale_up_stabilization_seconds)}
    down = policy.scale_down_stabilization_seconds
    return {
        "scaleUp": {**up, "policies": policies, "selectPolicy": "Max"} if policies else up,
        **({} if down is None else {"scaleDown": {"stabilizationWindowSeconds": _window(down)}}),
    }


def _window(seconds: float) -> int:
    return min(math.ceil(seconds), _LONGEST_WINDOW_SECONDS)
