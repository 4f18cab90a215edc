"""deploy/kubernetes on a real Kubernetes: its rights, its start, a rollout with jobs at work, and its removal."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from brain_clusters import drivers
from brain_clusters.cli.client import ApiClient
from brain_clusters.embedded import ServerUrls
from brain_clusters.errors import BrainError
from brain_clusters.ports import free_port
from tests.engines.images import agent_image
from tests.engines.installing import MANIFESTS, Installation, apply, built, kubectl

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

BLUEPRINT = """
metadata: {id: installed, name: Installed, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 4}
agents:
  - {role: supervisor, name: Desk, driver: kubernetes, command: [cat], pod: {host_network: true}}
  - role: worker
    name: Sleepers
    count: 1-2
    driver: kubernetes
    command: [sh, -c, "sleep 8; cat"]
    pod: {host_network: true}
"""


@pytest.fixture(scope="module")
def empty_database_url(servers: ServerUrls) -> Iterator[str]:
    """A database without any table: the installation has to make them."""
    assert servers.database_url
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield admin.url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="module")
def installation(
    kubeconfig: str, docker_host: str, empty_database_url: str, redis_url: str
) -> Iterator[Installation]:  # fmt: skip
    """The control plane, as it was applied. Its image has what the host needs."""
    assert kubeconfig
    assert docker_host
    prefix = f"brain-install-{uuid.uuid4().hex[:8]}"
    found = Installation(prefix, agent_image("kubernetes"), free_port(), empty_database_url, redis_url)
    try:
        found.install()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def api(installation: Installation, until: Callable[..., Any]) -> Iterator[ApiClient]:
    """The API of the installation, once it answers."""
    installation.rollout()
    client = ApiClient(f"http://127.0.0.1:{installation.port}", key=installation.key)

    def answers() -> bool:
        try:
            return bool(client.get("/api/blueprints")["total"])
        except BrainError:
            return False

    until(answers, "the API answers", 60)
    yield client
    client.close()


def test_every_object_is_one_that_the_server_takes(installation: Installation) -> None:
    applied = kubectl("-n", installation.control_plane, "get", "deployments,services,pdb,networkpolicies", "-o", "name")
    assert len(applied.split()) == 4 + 1 + 3 + 3
    assert kubectl("-n", installation.agents, "get", "networkpolicies", "-o", "name").strip()


def test_the_overlay_for_trying_out_is_taken_too(installation: Installation) -> None:
    servers = [
        each for each in built(MANIFESTS / "overlays" / "try") if each["metadata"]["name"] in ("postgres", "redis")
    ]
    for each in servers:
        each["metadata"]["namespace"] = installation.control_plane
    assert len(servers) == 4
    apply(servers, "--dry-run=server")


ALLOWED = [
    ("create", "pods"), ("delete", "pods"), ("get", "pods"), ("list", "pods"), ("watch", "pods"),
    ("get", "pods/log"), ("list", "events"),
]  # fmt: skip
REFUSED = [
    ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods/exec"), ("create", "pods/attach"),
    ("create", "pods/portforward"), ("update", "pods"), ("patch", "pods"), ("deletecollection", "pods"),
    ("create", "deployments"), ("create", "serviceaccounts/token"), ("impersonate", "users"), ("create", "roles"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "what"), ALLOWED)
def test_the_host_may_do_this_with_agents_and_nowhere_else(installation: Installation, verb: str, what: str) -> None:
    host = "brain-clusters-host"
    assert installation.can(verb, what, installation.agents, host)
    for namespace in (installation.control_plane, "default", "kube-system"):
        assert not installation.can(verb, what, namespace, host)


@pytest.mark.parametrize(("verb", "what"), REFUSED)
def test_the_host_may_not(installation: Installation, verb: str, what: str) -> None:
    assert not installation.can(verb, what, installation.agents, "brain-clusters-host")


@pytest.mark.parametrize("what", ["nodes", "namespaces", "persistentvolumes"])
def test_the_host_sees_nothing_of_the_cluster_as_a_whole(installation: Installation, what: str) -> None:
    assert not installation.can("list", what, installation.agents, "brain-clusters-host")


@pytest.mark.parametrize("account", ["brain-clusters", "default"])
def test_everybody_else_may_do_nothing_with_agents(installation: Installation, account: str) -> None:
    assert not any(installation.can(verb, what, installation.agents, account) for verb, what in ALLOWED)


def test_no_pod_but_the_hosts_has_a_token(installation: Installation) -> None:
    deployments = [each for each in installation.manifests() if each["kind"] == "Deployment"]
    mounts = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for each in deployments
    }
    assert [name for name, mounted in mounts.items() if mounted] == ["brain-clusters-host"]


def test_no_secret_stands_in_what_is_applied() -> None:
    kinds = {each["kind"] for each in built(MANIFESTS)}
    assert "Secret" not in kinds


def test_it_migrates_and_serves(api: ApiClient) -> None:
    assert api.get("/readyz") is not None
    assert {each["id"] for each in api.get("/api/blueprints")["blueprints"]} >= {"demo"}


def test_a_second_apply_changes_nothing(installation: Installation, api: ApiClient) -> None:
    assert api.get("/version")
    before = installation.pods(installation.control_plane)
    apply(installation.manifests())
    installation.rollout()
    assert installation.pods(installation.control_plane) == before


@pytest.fixture(scope="module")
def cluster(api: ApiClient) -> str:
    """A cluster whose agents are pods."""
    if "kubernetes" not in drivers.installed():
        pytest.skip("the driver kubernetes is not installed")
    api.post("/api/blueprints", {"yaml": BLUEPRINT})
    body = {"blueprint_id": "installed", "name": "Installed", "id": "installed"}
    made = api.post("/api/clusters", body, wait_seconds=60)
    assert made["operation"]["status"] == "succeeded", made
    return "installed"


def test_its_host_runs_agents_as_pods(installation: Installation, api: ApiClient, cluster: str, until: Any) -> None:
    job = api.post(f"/api/clusters/{cluster}/jobs", {"payload": {"n": 1}})["job"]["id"]
    until(lambda: api.get(f"/api/jobs/{job}")["status"] == "succeeded", "the job is done")
    assert len(installation.pods(installation.agents)) == 2


def test_a_rollout_with_jobs_at_work_ends_no_agent_and_loses_nothing(
    installation: Installation, api: ApiClient, cluster: str, until: Any
) -> None:
    jobs = [
        api.post(f"/api/clusters/{cluster}/jobs", {"payload": {"n": n}, "to": "Sleepers"})["job"]["id"]
        for n in range(4)
    ]

    def is_running() -> bool:
        return any(api.get(f"/api/jobs/{job}")["status"] == "running" for job in jobs)

    until(is_running, "a job runs")
    before = installation.pods(installation.agents)
    kubectl("-n", installation.control_plane, "rollout", "restart", "deployment")
    installation.rollout()

    def statuses() -> set[str]:
        try:
            return {api.get(f"/api/jobs/{job}")["status"] for job in jobs}
        except BrainError:  # the one API of this installation was away
            return set()

    until(lambda: statuses() == {"succeeded"}, "all jobs are done", 120)
    assert {api.get(f"/api/jobs/{job}")["attempts"] for job in jobs} == {1}
    assert before.items() <= installation.pods(installation.agents).items()


def test_removed_it_leaves_nothing(installation: Installation) -> None:
    installation.remove()
    for namespace in (installation.control_plane, installation.agents):
        found = subprocess.run(["kubectl", "get", "namespace", namespace], capture_output=True, check=False)
        assert found.returncode, f"{namespace} is still there"
