"""What ``export kubernetes`` writes, on a real Kubernetes. KEDA's part is played by ``kubectl scale``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from brain_clusters.broker import names
from brain_clusters.cli import main
from brain_clusters.domain.commands import HibernateCluster
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import alone, blueprints
from brain_clusters.services.control import Control
from tests.engines.installing import apply, kubectl, secret
from tests.integration.stage import Stage

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

TEXT = """
metadata: {id: exported, name: Exported, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 4, scaling: {scale_down: {drain_timeout: 30 s}}}
agents:
  - {role: supervisor, name: Desk, command: [cat], pod: {host_network: true}}
  - {role: worker, name: Sleepers, count: 0-3, command: [sh, -c, "sleep 6; cat"], pod: {host_network: true}}
lifecycle: {reactivate_triggers: [manual_trigger]}
"""


@pytest.fixture
def stage(control: Control) -> Stage:
    blueprints.store(control, TEXT)
    return Stage(control)


@pytest.fixture
def cluster_id(stage: Stage) -> str:
    """A cluster that sleeps in the control plane."""
    cluster_id = stage.active(blueprint_id="exported")
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    return cluster_id


@pytest.fixture
def namespace(kubeconfig: str) -> Iterator[str]:
    assert kubeconfig
    name = f"brain-export-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name)


@pytest.fixture
def sleepers(cluster_id: str, namespace: str, image: str, redis_url: str, tmp_path: Path) -> str:
    """The Deployment of the group Sleepers, which has no pod yet."""
    file = tmp_path / "exported.yaml"
    file.write_text(TEXT)
    options = ["--blueprint", str(file), "--namespace", namespace, "--image", image, "--secret", "place"]
    done = CliRunner().invoke(main, ["export", "kubernetes", cluster_id, *options])
    assert done.exit_code == 0, done.output
    deployments = [each for each in yaml.safe_load_all(done.output) if each["kind"] == "Deployment"]
    # As text, so that Kubernetes reads what was written and not what PyYAML made of it.
    texts = [text for text in done.output.split("---\n") if "kind: Deployment" in text]
    apply([secret("place", namespace, {"BRAIN_AGENT_REDIS_URL": redis_url})])
    kubectl("apply", "--server-side", "-f", "-", given="---\n".join(texts))
    [name] = [each["metadata"]["name"] for each in deployments if "sleepers" in each["metadata"]["name"]]
    kubectl("-n", namespace, "scale", "deployment", name, "--replicas=1")
    kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=110s")
    return name


def pods(namespace: str, component: str) -> list[str]:
    """Return the names of a group's pods that are not about to end."""
    labels = f"app.kubernetes.io/component={component}"
    found = json.loads(kubectl("-n", namespace, "get", "pods", "-l", labels, "-o", "json"))["items"]
    return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]


def has_begun(stage: Stage, job_id: str) -> bool:
    return stage.redis.hget(names.job_key(job_id), "status") == b"running"


def is_done(stage: Stage, job_id: str) -> bool:
    """Do the control plane's part once, and look."""
    alone.give_up_silent(stage.control)
    stage.tick()
    return stage.job(job_id).status is JobStatus.SUCCEEDED


def test_a_job_whose_pod_is_killed_is_done_by_the_next(
    stage: Stage, cluster_id: str, namespace: str, sleepers: str, until: Callable[..., Any]
) -> None:
    assert sleepers
    job = stage.post(cluster_id, to="Sleepers", payload={"n": 1})
    until(lambda: has_begun(stage, job.id), "the job runs", 60)
    [pod] = pods(namespace, "sleepers")
    kubectl("-n", namespace, "delete", "pod", pod, "--grace-period=1", "--wait=false")
    until(lambda: is_done(stage, job.id), "the job is done", 120)
    assert (stage.job(job.id).result, stage.job(job.id).attempts) == ({"n": 1}, 2)
    assert pod not in pods(namespace, "sleepers")


def test_a_smaller_deployment_lets_its_pods_finish_their_jobs(
    stage: Stage, cluster_id: str, namespace: str, sleepers: str, until: Callable[..., Any]
) -> None:
    job = stage.post(cluster_id, to="Sleepers", payload={"n": 2})
    until(lambda: has_begun(stage, job.id), "the job runs", 60)
    kubectl("-n", namespace, "scale", "deployment", sleepers, "--replicas=0")
    until(lambda: is_done(stage, job.id), "the job is done", 60)
    assert stage.job(job.id).attempts == 1
    assert stage.cluster(cluster_id).current_workers == 0
