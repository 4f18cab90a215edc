"""Pods without a cluster: what they are made of, what their status tells, and what the API server refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.config import Settings
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.errors import BrainError, InvalidInput, PermanentError, TemporaryError
from brain_clusters.genesis.driver import Kit, Phase
from brain_clusters.genesis.kubernetes.manifest import pod_manifest
from brain_clusters.genesis.kubernetes.naming import Owner, label_value
from brain_clusters.genesis.kubernetes.refusals import Denied, refusal
from brain_clusters.genesis.kubernetes.status import is_hopeless, sighting, vanished

OWNER = Owner("an installation", "a host")
LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def kit(**settings: Any) -> Kit:
    found = Settings(home=Path("/nowhere"), **settings)
    agent = {"redis_url": "redis://:secret@redis.example:6379/0"}
    return Kit(found, "a host", agent, {"HERE": "value of the host"}, None)  # type: ignore[arg-type]


def manifest(given_kit: Kit | None = None, **fields: Any) -> Any:
    engine = fields.pop("engine", Engine("kubernetes", "image:1"))
    common: Any = {"agent_id": "shop.clerks.1a2b", "cluster_id": "shop", "group_name": "Clerks", "role": "worker"}
    spec = AgentSpec(**{**common, "queue": "q", "engine": engine, **fields})
    return pod_manifest(spec, given_kit or kit(), OWNER)


def variables(pod: Any) -> dict[str, Any]:
    return {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}


# --- names ---------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=120))
def test_any_id_gives_a_name_and_a_label_that_kubernetes_takes(text: str) -> None:
    import re

    assert re.fullmatch(DNS_LABEL, OWNER.pod_name(text))
    assert re.fullmatch(LABEL, label_value(text))


def test_ids_that_look_alike_have_pods_of_their_own() -> None:
    ids = ["a-b.c.1", "a.b-c.1", "A-b.c.1", "a_b.c.1", f"{'x' * 100}.1", f"{'x' * 100}.2"]
    assert len({OWNER.pod_name(one) for one in ids}) == len({label_value(one) for one in ids}) == len(ids)
    assert OWNER.pod_name("a") != Owner("another installation", "a host").pod_name("a")


# --- manifests -----------------------------------------------------------------------------------------------------


def test_a_pod_bears_its_agent_in_full_and_labels_of_whom_it_belongs_to() -> None:
    metadata = manifest(agent_id=f"{'long' * 20}.clerks.1")["metadata"]
    assert metadata["annotations"]["brain-clusters/agent-id"] == f"{'long' * 20}.clerks.1"
    assert OWNER.owns(metadata["labels"])
    assert not Owner("an installation", "another").owns(metadata["labels"])
    assert metadata["labels"]["brain-clusters/cluster"] == "shop"


def test_redis_and_its_password_are_in_one_variable_only_or_in_a_secret() -> None:
    told = variables(manifest())
    assert told["BRAIN_AGENT_REDIS_URL"]["value"] == "redis://:secret@redis.example:6379/0"
    assert "secret" not in told["BRAIN_AGENT"]["value"]
    by_secret = manifest(kit(kubernetes_secret="redis"))
    assert "secret@" not in json.dumps(by_secret)
    reference = {"secretKeyRef": {"name": "redis", "key": "BRAIN_AGENT_REDIS_URL"}}
    assert variables(by_secret)["BRAIN_AGENT_REDIS_URL"]["valueFrom"] == reference


def test_variables_are_resolved_by_the_host_or_referred_to_and_never_expanded() -> None:
    environment = {"A": "secret:names/a.key", "B": "env:HERE", "C": "$(PATH) $x $$"}
    told = variables(manifest(engine=Engine("kubernetes", environment=environment)))
    assert told["A"] == {"name": "A", "valueFrom": {"secretKeyRef": {"name": "names", "key": "a.key"}}}
    assert told["B"]["value"] == "value of the host"
    assert told["C"]["value"] == "$$(PATH) $$x $$$$"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"engine": Engine("kubernetes", environment={"A": "env:NOWHERE"})}, "environment.A"),
        ({"engine": Engine("kubernetes", environment={"A": "secret:no key"})}, "secret:NAME/KEY"),
        ({"config": {"text": "x" * 140_000}}, "bytes"),
    ],
)
def test_what_no_pod_can_be_made_of_says_why(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(PermanentError, match=word):
        manifest(**fields)


def test_redis_on_loopback_is_refused_unless_the_pod_is_on_the_network_of_its_node() -> None:
    here = kit(agent_redis_url="redis://127.0.0.1:6379/0")
    with pytest.raises(PermanentError, match="BRAIN_AGENT_REDIS_URL"):
        manifest(here)
    manifest(here, engine=Engine("kubernetes", pod={"host_network": True}))


def test_what_is_asked_for_is_what_it_is_limited_to() -> None:
    pod = manifest(engine=Engine("kubernetes", resources=Resources(0.5, 64 * 1024**2)))
    amounts = {"cpu": "500m", "memory": "67108864"}
    assert pod["spec"]["containers"][0]["resources"] == {"requests": amounts, "limits": amounts}
    assert manifest()["spec"]["containers"][0]["resources"] == {}


@pytest.mark.parametrize(("policy", "stop"), [("stop", "90"), ("wait", "100000000")])
def test_an_agent_that_stops_has_the_time_that_its_group_gives(policy: str, stop: str) -> None:
    pod = manifest(drain_timeout_seconds=90.0, on_drain_timeout=policy)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 90
    assert pod["metadata"]["annotations"]["brain-clusters/stop-seconds"] == stop


def test_the_pod_section_becomes_what_kubernetes_calls_it() -> None:
    section = {
        "service_account": "a", "image_pull_policy": "Always", "image_pull_secrets": ["b"],
        "node_selector": {"gpu": "yes"}, "priority_class": "c", "runtime_class": "d",
        "tolerations": [{"key": "x", "value": "y"}, {"effect": "NoExecute", "seconds": 5}],
        "labels": {"team": "e"}, "annotations": {"f/g": "h"}, "host_network": True,
        "run_as_user": 7, "fs_group": 8, "read_only": False,
        "volumes": [
            {"mount": "/app", "config_map": "i", "read_only": True}, {"mount": "/tmp", "empty_dir": "1Gi"},
            {"mount": "/s", "secret": "j"}, {"mount": "/d", "claim": "k"},
        ],
    }  # fmt: skip
    pod = manifest(engine=Engine("kubernetes", pod=section))
    spec = pod["spec"]
    assert spec | {
        "serviceAccountName": "a", "imagePullSecrets": [{"name": "b"}], "nodeSelector": {"gpu": "yes"},
        "priorityClassName": "c", "runtimeClassName": "d", "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
    } == spec  # fmt: skip
    assert spec["tolerations"] == [
        {"key": "x", "value": "y", "operator": "Equal"},
        {"effect": "NoExecute", "operator": "Exists", "tolerationSeconds": 5},
    ]
    assert [{key: one[key] for key in one if key != "name"} for one in spec["volumes"]] == [
        {"configMap": {"name": "i"}}, {"emptyDir": {"sizeLimit": "1073741824"}},
        {"secret": {"secretName": "j"}}, {"persistentVolumeClaim": {"claimName": "k"}},
    ]  # fmt: skip
    assert [one["mountPath"] for one in spec["containers"][0]["volumeMounts"]] == ["/app", "/tmp", "/s", "/d"]
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (7, 8)
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    assert pod["metadata"]["labels"]["team"] == "e"
    assert pod["metadata"]["annotations"]["f/g"] == "h"


def test_a_pod_section_is_checked_with_all_its_faults_at_once() -> None:
    section = {
        "service_account": "Upper", "labels": {"brain-clusters/host": "mine"}, "privileged": True,
        "volumes": [{"mount": "app", "config_map": "a"}, {"mount": "/a", "secret": "b", "claim": "c"}],
        "tolerations": [{"effect": "Never"}], "run_as_user": 0,
    }  # fmt: skip
    blueprint = {
        "metadata": {"id": "a", "name": "A", "version": "1"},
        "cluster": {"type": "project", "min_workers": 1, "max_workers": 2},
        "agents": [{"role": "supervisor", "name": "Boss", "driver": "kubernetes", "pod": section}],
    }
    with pytest.raises(InvalidInput) as refused:
        parse_blueprint(json.dumps(blueprint))
    assert {fault.pointer.removeprefix("/agents/0/pod/") for fault in refused.value.faults} == {
        "service_account", "labels/brain-clusters~1host", "privileged", "volumes/0/mount", "volumes/1",
        "tolerations/0/effect", "run_as_user",
    }  # fmt: skip


# --- what is seen --------------------------------------------------------------------------------------------------


def seen(status: dict[str, Any], **metadata: Any) -> Any:
    return {
        "metadata": {"name": "p", "namespace": "n", "annotations": {"brain-clusters/agent-id": "a"}, **metadata},
        "spec": {"nodeName": "node-1", "containers": [{"image": "image:1"}]},
        "status": status,
    }


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"state": state}]


@pytest.mark.parametrize(
    ("status", "phase", "reason", "code"),
    [
        ({"phase": "Pending"}, Phase.STARTING, None, None),
        (
            {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]},
            Phase.STARTING, "Unschedulable: 0/1 nodes", None,
        ),
        (
            {"phase": "Pending", "containerStatuses": container(waiting={"reason": "ContainerCreating"})},
            Phase.STARTING, None, None,
        ),
        (
            {"phase": "Pending", "containerStatuses": container(
                waiting={"reason": "CreateContainerConfigError", "message": 'secret "x" not found'})},
            Phase.STARTING, 'CreateContainerConfigError: secret "x" not found', None,
        ),
        (
            {"phase": "Pending", "containerStatuses": container(
                waiting={"reason": "ErrImagePull", "message": "dial tcp: no such host"})},
            Phase.STARTING, "ErrImagePull of image:1: dial tcp: no such host", None,
        ),
        (
            {"phase": "Pending", "containerStatuses": container(
                waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "image:1"'})},
            Phase.STARTING, 'ImagePullBackOff: Back-off pulling image "image:1"', None,
        ),
        ({"phase": "Running", "containerStatuses": container(running={})}, Phase.RUNNING, None, None),
        (
            {"phase": "Running", "containerStatuses": container(running={}),
             "conditions": [{"type": "Ready", "status": "Unknown"}]},
            Phase.RUNNING, "its node node-1 does not answer", None,
        ),
        (
            {"phase": "Succeeded", "containerStatuses": container(terminated={"exitCode": 0, "reason": "Completed"})},
            Phase.ENDED, None, 0,
        ),
        (
            {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 3, "reason": "Error"})},
            Phase.ENDED, "exited with 3 unasked", 3,
        ),
        (
            {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 143, "reason": "Error"})},
            Phase.ENDED, "killed by SIGTERM", -15,
        ),
        (
            {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            Phase.ENDED, "OOMKilled: it took more memory than its group's resources allow", -9,
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            Phase.ENDED, "Evicted: The node was low on resource: memory.", None,
        ),
        (
            {"phase": "Failed", "containerStatuses": container(
                terminated={"exitCode": 128, "reason": "ContainerCannotRun", "message": "exec: python: not found"})},
            Phase.ENDED, "ContainerCannotRun: exec: python: not found", None,
        ),
    ],
)  # fmt: skip
def test_a_status_tells_how_far_an_agent_is_and_why(
    status: dict[str, Any], phase: Phase, reason: str | None, code: int | None
) -> None:
    found = sighting(seen(status), "a")
    assert (found.phase, found.reason, found.code) == (phase, reason, code)
    assert found.handle == {"pod": "p", "namespace": "n", "node": "node-1"}


def test_only_what_cannot_start_as_it_is_is_hopeless() -> None:
    waiting = [("ImagePullBackOff", True), ("CreateContainerConfigError", True), ("ContainerCreating", False)]
    for reason, hopeless in waiting:
        assert is_hopeless(seen({"containerStatuses": container(waiting={"reason": reason})})) is hopeless


def test_a_pod_that_vanishes_has_ended_and_tells_who_was_the_cause_where_that_is_known() -> None:
    running = {"phase": "Running", "containerStatuses": container(running={})}
    assert vanished(seen(running), "a").reason == "its pod was deleted"
    disrupted = {"type": "DisruptionTarget", "status": "True", "message": "Taint manager: deleting due to NoExecute"}
    assert "Taint manager" in str(vanished(seen({**running, "conditions": [disrupted]}), "a").reason)
    done = {"phase": "Succeeded", "containerStatuses": container(terminated={"exitCode": 0})}
    assert vanished(seen(done), "a").code == 0


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "kind", "word"),
    [
        (401, "Unauthorized", Denied, "credentials"),
        (403, 'pods is forbidden: User "u" cannot create resource "pods" in the namespace "n"', Denied, "RBAC"),
        (403, 'pods "p" is forbidden: exceeded quota: q, requested: pods=1', TemporaryError, "exceeded quota: q"),
        (403, "unable to create new content in namespace n because it is being terminated", TemporaryError, "deleted"),
        (403, 'pods "p" is forbidden: violates PodSecurity "restricted"', PermanentError, "PodSecurity"),
        (422, "spec.nodeSelector: Invalid value", PermanentError, "Invalid value"),
        (429, "too many requests", TemporaryError, "too many"),
        (503, "apiserver not ready", TemporaryError, "not ready"),
    ],
)
def test_a_refusal_says_whether_to_try_again_and_what_is_wrong(
    status: int, message: str, kind: type[BrainError], word: str
) -> None:
    found = refusal(status, json.dumps({"message": message}).encode(), {})
    assert type(found) is kind
    assert word in str(found)


def test_the_server_says_when_to_come_again() -> None:
    found = refusal(429, b"not even JSON", {"Retry-After": "7"})
    assert isinstance(found, TemporaryError)
    assert found.delay_seconds == 7
