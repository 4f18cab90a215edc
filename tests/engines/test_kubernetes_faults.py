"""The Kubernetes driver and what goes wrong on real clusters: lost answers, cut watches, no room, no image, no node."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.errors import PermanentError, TemporaryError
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Driver, Kit, Phase
from brain_clusters.ports import free_port
from tests.engines.docker_proxy import Proxy
from tests.engines.kube import Kube

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
_POD = {"host_network": True}
Until = Callable[..., Any]


@pytest.fixture(scope="module")
def server(kubeconfig: str, until: Until) -> Iterator[str]:
    """The address of the API server without TLS, where nobody has to log in, on loopback."""
    assert kubeconfig
    port = free_port()
    command = ["kubectl", "proxy", "--port", str(port), "--reject-methods", "^$"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def listens() -> bool:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port))):
                return True
            return False

        until(listens, "kubectl proxy listens")
        yield f"tcp://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """What stands between driver and API server, and makes errors."""
    proxy = Proxy(server)
    yield proxy
    proxy.down()


@pytest.fixture
def ground(kube: Kube, image: str, redis_url: str, proxy: Proxy, tmp_path: Path) -> Ground:
    """The ground of a host that reaches the cluster by the proxy."""
    config = {
        "clusters": [{"name": "test", "cluster": {"server": proxy.address.replace("tcp", "http")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": kube.namespace}}],
        "users": [{"name": "test", "user": {}}],
        "current-context": "test",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    return Ground(
        factory=_make, engine=Engine("kubernetes", image, pod=_POD), home=tmp_path, patience_seconds=90.0,
        redis_url=redis_url, agents_redis_url=redis_url, environ={"KUBECONFIG": str(tmp_path / "kubeconfig")},
    )  # fmt: skip


def _make(kit: Kit) -> Driver:
    from brain_clusters.genesis.kubernetes.driver import KubernetesDriver

    return KubernetesDriver.make(kit)


@pytest.fixture
def stage(ground: Ground) -> Iterator[Stage]:
    """A host with its driver."""
    stage = Stage(ground, "a")
    yield stage
    stage.clear()


def _with(stage: Stage, **changes: Any) -> Engine:
    return replace(stage.ground.engine, **changes)


def _posts(proxy: Proxy) -> int:
    return sum(line.startswith("POST") for line in proxy.requests)


# --- the API server ------------------------------------------------------------------------------------------------


def test_a_pod_whose_creation_was_not_answered_is_taken_and_not_made_twice(
    stage: Stage, proxy: Proxy, kube: Kube
) -> None:
    proxy.lose_reply("^POST .*/pods")
    (agent,) = stage.start(stage.spec())
    stage.until_consuming([agent])
    stage.until(lambda: _posts(proxy) == 2, "it is asked for again")
    stage.until_quiet()
    assert set(kube.pods()) == {agent}
    assert not stage.ends


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_api_server_that_fails_is_asked_again_and_the_agent_knows_why_it_waits(
    stage: Stage, proxy: Proxy, status: int
) -> None:
    proxy.answer("^POST .*/pods", status, "busy by test", times=3)
    (agent,) = stage.start(stage.spec())
    stage.until(lambda: "busy by test" in _reason(stage, agent), "it is told why it waits")
    stage.until_consuming([agent])
    assert stage.told[agent].reason is None
    assert _posts(proxy) == 4


def test_a_creation_that_was_given_up_and_happens_after_all_leaves_no_pod(
    stage: Stage, proxy: Proxy, kube: Kube
) -> None:
    proxy.answer("^POST .*/pods", 500, times=1000)
    spec = stage.spec()
    stage.start(spec)
    stage.until(lambda: _reason(stage, spec.agent_id), "it waits")
    stage.call(stage.driver.stop, [spec.agent_id])
    stage.until_ended(spec.agent_id)
    stage.call(stage.driver.remove, [spec.agent_id])
    kube.apply(_manifest(stage, spec))
    stage.until(lambda: not kube.pods(), "the pod is gone")
    assert len(stage.ends[spec.agent_id]) == 1


def test_a_deletion_that_was_not_answered_is_asked_for_again(stage: Stage, proxy: Proxy, kube: Kube) -> None:
    agent = stage.agent()
    proxy.lose_reply("^DELETE ", times=2)
    stage.call(stage.driver.stop, [agent])
    stage.until_ended(agent)
    stage.call(stage.driver.remove, [agent])
    stage.until(lambda: not kube.pods(), "the pod is gone")


def test_no_end_is_missed_while_the_watch_is_cut_again_and_again(stage: Stage, proxy: Proxy) -> None:
    agents = stage.agents(3)
    for agent in agents:
        stage.send(agent, "die")
        proxy.cut()
    for agent in agents:
        assert stage.until_ended(agent).code == 3
    assert [len(ends) for ends in stage.ends.values()] == [1, 1, 1]


def test_what_happened_while_nobody_could_watch_is_found_by_a_listing(stage: Stage, proxy: Proxy, kube: Kube) -> None:
    deleted, died, lives = stage.agents(3)
    proxy.down()
    kube.delete_pod(deleted, now=True)
    stage.send(died, "die")
    stage.until(lambda: kube.pods()[died]["status"]["phase"] == "Failed", "it has died", looking=False)
    proxy.answer("^GET .*watch=true", 410, "too old resource version")
    proxy.up()
    assert stage.until_ended(deleted).reason == "its pod is gone"
    assert stage.until_ended(died).code == 3
    stage.does(lives)
    assert lives not in stage.ends


def test_a_watch_that_lost_its_place_lists_and_goes_on(stage: Stage, proxy: Proxy) -> None:
    agent = stage.agent()
    before = _listings(proxy)
    proxy.answer("^GET .*watch=true", 410, "too old resource version", times=2)
    proxy.cut()
    stage.until(lambda: _listings(proxy) >= before + 2, "it lists again")
    stage.send(agent, "die")
    stage.until_ended(agent)


def _listings(proxy: Proxy) -> int:
    return sum(line.startswith("GET") and "/pods?" in line and "watch" not in line for line in proxy.requests)


def test_a_server_that_is_away_is_waited_for_and_refusals_at_the_start_say_what_to_do(
    ground: Ground, proxy: Proxy
) -> None:
    def opens(told: type[Exception], *words: str) -> None:
        driver = ground.factory(ground.kit("a", None))  # type: ignore[arg-type]
        try:
            with pytest.raises(told) as caught:
                driver.open()
            assert all(word in str(caught.value) for word in words), caught.value
        finally:
            driver.close()

    proxy.down()
    opens(TemporaryError, "no answer from Kubernetes", proxy.address.removeprefix("tcp://"))
    proxy.up()
    proxy.answer("^GET", 401, "Unauthorized")
    opens(PermanentError, "credentials", "renew")
    forbidden = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "n"'
    proxy.answer("^GET", 403, forbidden)
    opens(PermanentError, 'cannot list resource "pods"', "RoleBinding")


# --- the cluster ---------------------------------------------------------------------------------------------------


def test_a_quota_is_waited_for_with_its_reason_and_is_no_failure(stage: Stage, kube: Kube) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}}
    kube.apply(quota)
    try:
        stage.until(
            lambda: "status" in kube.kubectl("get", "quota", "two", "-o", "jsonpath={.status.hard}{'status'}"), ""
        )
        agents = stage.start(*(stage.spec() for _ in range(3)))

        def told() -> list[str]:
            return [agent for agent in agents if "exceeded quota" in _reason(stage, agent)]

        stage.until(lambda: len(told()) == 1 and len(kube.pods()) == 2, "one of three has no room, and says so")
        stage.until_quiet()
        assert not stage.ends
    finally:
        kube.kubectl("delete", "quota", "two")
    stage.until_consuming(agents)


def test_a_pod_that_no_node_takes_says_why(stage: Stage) -> None:
    (agent,) = stage.start(stage.spec(engine=_with(stage, pod={**_POD, "node_selector": {"no-such": "node"}})))
    stage.until(lambda: "nodes are available" in _reason(stage, agent), "it is told why it waits")
    assert stage.told[agent].phase is Phase.STARTING


def test_an_image_that_is_not_there_is_told_and_given_up_after_a_while(ground: Ground, kube: Kube) -> None:
    def make(kit: Kit) -> Driver:
        return _make(replace(kit, settings=replace(kit.settings, start_timeout_seconds=3.0)))

    stage = Stage(replace(ground, factory=make), "a")
    (agent,) = stage.start(stage.spec(engine=_with(stage, image="brain-clusters-test:no-such-image")))
    stage.until(lambda: "no-such-image" in _reason(stage, agent), "it is told why it waits")
    ended = stage.until_ended(agent)
    assert "no-such-image" in str(ended.reason)
    assert ended.code is None
    stage.clear()
    stage.until(lambda: not kube.pods(), "the pod is gone", looking=False)


def test_what_comes_from_a_secret_is_waited_for_and_stands_in_no_pod(
    ground: Ground, kube: Kube, redis_url: str
) -> None:
    def make(kit: Kit) -> Driver:
        unused = "redis://127.0.0.1:1/0"
        return _make(replace(kit, settings=replace(kit.settings, kubernetes_secret="given", agent_redis_url=unused)))

    stage = Stage(replace(ground, factory=make), "a")
    try:
        environment = {"FROM_SECRET": "secret:given/word", "FROM_TEXT": "$(HOME) $$x"}
        (agent,) = stage.start(stage.spec(engine=_with(stage, environment=environment)))
        stage.until(lambda: 'secret "given" not found' in _reason(stage, agent), "it is told why it waits")
        data = {"word": "$(HOME) $$x", "BRAIN_AGENT_REDIS_URL": redis_url}
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given"}, "stringData": data})
        stage.until_consuming([agent])
        for name in environment:
            stage.does(agent, "tell a variable", name)
        assert set(stage.redis.hgetall(f"{stage.keys}:variables").values()) == {b"$(HOME) $$x"}
        assert redis_url not in json.dumps(kube.pods()[agent])
    finally:
        stage.clear()


def test_handlers_come_from_a_config_map_and_a_missing_one_is_told(stage: Stage, kube: Kube) -> None:
    volume = {"mount": "/app", "config_map": "handlers"}
    spec = stage.spec(handler="mounted:work", engine=_with(stage, pod={**_POD, "volumes": [volume]}))
    (agent,) = stage.start(spec)
    stage.until(lambda: 'configmap "handlers" not found' in _reason(stage, agent), "it is told why it waits")
    code = "from brain_clusters.genesis.contract.jobs import work\n"
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "handlers"}, "data": {"mounted.py": code}}
    )
    stage.until_consuming([agent])
    stage.does(agent)


def test_an_agent_that_takes_too_much_memory_is_told_so(stage: Stage) -> None:
    (agent,) = stage.start(stage.spec(engine=_with(stage, resources=Resources(memory_bytes=24 * 1024**2))))
    ended = stage.until_ended(agent)
    assert "OOMKilled" in str(ended.reason)


@pytest.mark.parametrize("now", [False, True])
def test_a_pod_that_somebody_deletes_is_an_end(stage: Stage, kube: Kube, now: bool) -> None:
    agent = stage.agent()
    kube.delete_pod(agent, now=now)
    stage.until_ended(agent)
    assert stage.sighted([agent])[agent].phase is Phase.ENDED


def test_an_agent_that_is_evicted_finishes_its_job(stage: Stage, kube: Kube) -> None:
    agent, job = stage.busy_agent()
    name = kube.pods()[agent]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{name}/eviction"
    kube.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    stage.until_beats(agent, 3)
    stage.open_gate(job)
    stage.until_done(job)
    stage.until_ended(agent)


def test_pods_are_as_safe_as_their_namespace_may_ask(stage: Stage, kube: Kube) -> None:
    agent = stage.agent()
    pod = kube.pods()[agent]
    container = pod["spec"]["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True
    }  # fmt: skip
    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["restartPolicy"] == "Never"


def _reason(stage: Stage, agent: str) -> str:
    told = stage.told.get(agent)
    return "" if told is None else told.reason or ""


def _manifest(stage: Stage, spec: Any) -> Any:
    """Return the manifest that the stage's driver makes of a spec."""
    from brain_clusters.genesis.kubernetes.manifest import pod_manifest
    from brain_clusters.genesis.kubernetes.naming import Owner

    kit = stage.ground.kit(f"{stage.ground.name}-a", None)  # type: ignore[arg-type]
    return pod_manifest(spec, kit, Owner("", kit.host_id))
