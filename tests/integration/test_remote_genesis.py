"""The driver remote and its service where the network, the service or the operator is at fault."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.errors import ConfigError, PermanentError, TemporaryError
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Factory, Phase
from brain_clusters.processes import ProcessId
from tests.integration.genesis_service import (
    KEY,
    Fault,
    Proxy,
    Service,
    cut_reply,
    lose_reply,
    refuse,
    remote,
    running_service,
    saying,
    silence_until,
)

Until = Callable[..., Any]
Stages = Callable[..., Stage]
PASSWORD = "a-password-that-nobody-tells"


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), until) as found:
        yield found


@pytest.fixture
def own_service(tmp_path: Path, until: Until) -> Iterator[Service]:
    """A service to be killed."""
    with running_service(tmp_path, until) as found:
        yield found


@pytest.fixture
def proxy(shared_service: Service) -> Iterator[Proxy]:
    found = Proxy(shared_service.port)
    yield found
    found.close()


@pytest.fixture
def stages(redis_url: str, tmp_path: Path) -> Iterator[Stages]:
    """A function that returns a host on a driver, which leaves nothing behind."""
    address = urlsplit(redis_url)
    url = redis_url if address.password else f"redis://default:{PASSWORD}@{address.netloc}{address.path}"
    made: list[Stage] = []

    def make(factory: Factory, host: str = "a") -> Stage:
        ground = Ground(
            factory=factory, engine=Engine(driver="remote"), redis_url=url, agents_redis_url=url, home=tmp_path,
            patience_seconds=60,
        )  # fmt: skip
        made.append(Stage(ground, host))
        return made[-1]

    yield make
    for stage in made:
        stage.clear()


@pytest.fixture
def stage(proxy: Proxy, stages: Stages) -> Stage:
    """A host whose requests take the way through the proxy."""
    return stages(remote(proxy.url))


def pid(stage: Stage, agent: str) -> int:
    return int(stage.told[agent].handle["pid"])


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        lose_reply,
        cut_reply,
        refuse,
        saying("429 Too Many Requests", Retry_After="1"),
        saying("503 Service Unavailable"),
        saying("500 Internal Server Error", "<html>oops</html>"),
        saying("200 OK", "<html>Welcome to our hotel's network</html>"),
    ],
    ids=["lost reply", "cut reply", "hung up", "429", "503", "500", "garbage"],
)
def test_a_request_that_fails_is_made_again_with_the_same_key_and_starts_its_agent_once(
    stage: Stage, proxy: Proxy, fault: Fault
) -> None:
    proxy.only = "POST /v1/hosts"
    proxy.faults.append(fault)
    (agent,) = stage.start(stage.spec())
    stage.until_consuming([agent])
    assert not proxy.faults
    stage.does(agent)
    first, second = proxy.requests("POST /v1/hosts")[:2]
    assert idempotency_key(first) == idempotency_key(second)
    assert first == second
    assert stage.sighted().keys() == {agent}


def idempotency_key(request: bytes) -> bytes:
    found = re.search(rb"(?im)^idempotency-key: (\S+)", request)
    assert found
    return found[1]


def test_a_service_that_is_slow_does_not_hold_up_its_host_and_starts_each_agent_once(
    stage: Stage, proxy: Proxy
) -> None:
    released = threading.Event()
    proxy.only = "POST /v1/hosts"
    proxy.faults.append(silence_until(released))
    (agent,) = stage.start(stage.spec())
    assert stage.told[agent].phase is Phase.STARTING
    assert "does not answer in time" in str(stage.told[agent].reason)
    released.set()
    stage.until_consuming([agent])
    assert stage.told[agent].reason is None
    stage.does(agent)


@pytest.mark.parametrize("fault", [lose_reply, cut_reply])
def test_an_end_is_told_though_the_answer_that_told_it_is_lost(stage: Stage, proxy: Proxy, fault: Fault) -> None:
    agent = stage.agent()
    proxy.only = "/changes"
    proxy.faults.append(fault)
    proxy.cut()
    stage.until(lambda: not proxy.faults, "the next poll is at the mercy of the fault")
    os.kill(pid(stage, agent), signal.SIGKILL)
    assert stage.until_ended(agent).code == -signal.SIGKILL
    stage.until_quiet()
    assert len(stage.ends[agent]) == 1


def test_while_the_service_is_out_of_reach_agents_go_on_and_the_reason_is_shown(stage: Stage, proxy: Proxy) -> None:
    before = stage.agent()
    proxy.close()
    (late,) = stage.start(stage.spec())
    assert stage.told[late].phase is Phase.STARTING
    assert "does not answer" in str(stage.told[late].reason)
    stage.does(before)
    with pytest.raises(TemporaryError, match="does not answer"):
        stage.driver.drain([before])
    assert not stage.ends
    proxy.open()
    stage.until_consuming([late])
    assert stage.told[late].reason is None
    stage.does(late)


# --- the service ------------------------------------------------------------------------------------------------


def test_a_service_that_is_killed_finds_its_agents_again_and_tells_who_died_meanwhile(
    own_service: Service, stages: Stages, until: Until
) -> None:
    stage = stages(remote(own_service.url))
    lives, dies = stage.agents(2)
    process = pid(stage, lives)
    own_service.kill()
    dead = ProcessId.of(pid(stage, dies))
    assert dead
    dead.send(signal.SIGKILL)
    until(lambda: not dead.alive, "it is dead")
    new = stage.start(stage.spec())[0]
    assert "does not answer" in str(stage.told[new].reason)
    own_service.start()
    stage.until_consuming([new])
    stage.until_ended(dies)
    stage.does(lives)
    assert pid(stage, lives) == process
    assert lives not in stage.ends
    stage.call(stage.driver.drain, [lives])
    assert stage.until_ended(lives).code in (0, None)


def test_an_agent_that_is_stopped_while_the_service_is_away_and_was_never_started_has_ended(
    own_service: Service, stages: Stages
) -> None:
    stage = stages(remote(own_service.url))
    own_service.kill()
    (agent,) = stage.start(stage.spec())
    with pytest.raises(TemporaryError):
        stage.driver.stop([agent])
    own_service.start()
    stage.call(stage.driver.stop, [agent])
    assert stage.until_ended(agent).code in (0, None)


def test_agents_and_service_outlive_a_host_and_the_service_outlives_many(
    shared_service: Service, stages: Stages
) -> None:
    stage = stages(remote(shared_service.url))
    agent = stage.agent()
    for _ in range(3):
        stage.close()
        stage.open()
    stage.until_consuming([agent])
    stage.does(agent)


class NoWords:
    """For drivers that tell nobody anything."""

    def tell(self, agent_ids: Sequence[str], *, drain: bool) -> None:
        raise AssertionError("nobody is to be told")


def opening(factory: Factory, home: Path) -> None:
    """Open a driver that cannot be opened."""
    ground = Ground(
        factory=factory, engine=Engine(), redis_url="redis://there", agents_redis_url="redis://there", home=home,
        patience_seconds=60,
    )  # fmt: skip
    driver = factory(ground.kit("a", NoWords()))
    try:
        driver.open()
    finally:
        driver.close()


def test_a_wrong_key_is_told_with_what_to_do(shared_service: Service, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"401.*BRAIN_GENESIS_KEY"):
        opening(remote(shared_service.url, genesis_key=("a-key-of-another-service",)), tmp_path)


def test_a_key_that_takes_the_place_of_another_is_accepted_beside_it(shared_service: Service) -> None:
    assert shared_service.request("GET", "/v1/hosts/nobody/agents")[0] == 404
    assert shared_service.request("GET", "/v1/hosts/nobody/agents", key=f"{KEY}-2")[0] == 404
    assert shared_service.request("GET", "/v1/hosts/nobody/agents", key=f"{KEY}-3")[0] == 401


def test_a_redirect_is_not_followed(tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults.append(saying("308 Permanent Redirect", Location="http://elsewhere.example/"))
    with pytest.raises(PermanentError, match=r"elsewhere\.example.*BRAIN_GENESIS_URL"):
        opening(remote(proxy.url), tmp_path)


def test_what_is_no_genesis_service_is_told_as_such(tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults.extend([saying("404 Not Found", "<html>nothing here</html>")] * 2)
    with pytest.raises(TemporaryError, match=r"nothing here.*BRAIN_GENESIS_URL"):
        opening(remote(proxy.url), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"genesis_url": None}, "BRAIN_GENESIS_URL is not set"),
        ({"genesis_url": "http://genesis.example"}, "BRAIN_GENESIS_PLAIN_HTTP=allow"),
        ({"genesis_url": "http://10.0.0.7:8090", "genesis_dialect": "spawn"}, "BRAIN_GENESIS_PLAIN_HTTP=allow"),
    ],
)
def test_settings_that_would_tell_secrets_to_others_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        opening(remote("", **settings), tmp_path)


def test_two_systems_whose_hosts_have_one_name_do_not_end_the_agents_of_each_other(
    shared_service: Service, redis_url: str
) -> None:
    ours, theirs = (f"{redis_url.rsplit('/', 1)[0]}/{number}" for number in (14, 15))
    assert shared_service.request("PUT", "/v1/hosts/twin", {"agent": {"redis_url": ours}})[0] == 200
    status, told, headers = shared_service.exchange("PUT", "/v1/hosts/twin", {"agent": {"redis_url": theirs}})
    assert (status, headers["Retry-After"]) == (409, "5")
    assert "BRAIN_HOST_ID" in told["detail"]


def test_it_refuses_to_listen_where_others_reach_it_without_a_key(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
    found = subprocess.run(
        [sys.executable, "-P", "-m", "brain_clusters", "genesis", "--listen", "0.0.0.0:8090"],
        env={**environment, "BRAIN_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    assert "set BRAIN_GENESIS_KEY first" in found.stderr


def test_the_password_of_redis_is_in_no_log(stage: Stage, shared_service: Service) -> None:
    agent = stage.agent()
    stage.call(stage.driver.stop, [agent], now=True)
    stage.until_ended(agent)
    secret = str(urlsplit(stage.ground.redis_url).password)
    logs = [path.read_text() for path in shared_service.home.rglob("*.log")]
    assert logs
    assert not [one for one in (*logs, shared_service.log) if secret in one]


# --- requests ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host(shared_service: Service, redis_url: str) -> str:
    """The path of a host that is open."""
    assert shared_service.request("PUT", "/v1/hosts/asker", {"agent": {"redis_url": redis_url}})[0] == 200
    return "/v1/hosts/asker"


def test_the_same_key_with_another_body_is_refused(shared_service: Service, host: str) -> None:
    for ids, status in ((["one"], 200), (["one"], 200), (["two"], 422)):
        body = {"agent_ids": ids}
        assert shared_service.request("POST", f"{host}/agents/drain", body, Idempotency_Key="k-1")[0] == status


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/v1/hosts/..", {"agent": {"redis_url": "redis://there"}}, 422),
        ("PUT", "/v1/hosts/a%20host", {"agent": {"redis_url": "redis://there"}}, 422),
        ("PUT", "/v1/hosts/spawn-dialect", {"agent": {"redis_url": "redis://there"}}, 422),
        ("PUT", "/v1/hosts/a", {"agent": {}}, 422),
        ("PUT", "/v1/hosts/a", {"agent": {"redis_url": "redis://there", "run_dir": "/etc"}}, 422),
        ("PUT", "/v1/hosts/a", b"{", 400),
        ("GET", "/v1/hosts/asker/changes?after=0.0&wait=0", None, 404),
        ("GET", "/v1/hosts/asker/changes?after=0.0&wait=61", None, 422),
        ("GET", "/v1/hosts/asker/agents/..%2F..%2Fzygote/logs", None, 404),
        ("GET", "/v1/hosts/asker/agents/x/logs?lines=0", None, 422),
        ("POST", "/v1/hosts/asker/agents/stop", {"agent_ids": ["../../x"]}, 422),
        ("POST", "/v1/hosts/asker/agents/stop", {"agent_ids": ["x"], "now": "yes"}, 422),
        ("POST", "/v1/hosts/asker/agents/remove", {}, 422),
        ("POST", "/v1/hosts/asker/agents/drain", b'{"agent_ids": ["' + b"x" * 2_000_000 + b'"]}', 413),
        ("PUT", "/v1/hosts/asker/warm", {"warm": [{"handler": "x"}]}, 422),
        ("POST", "/v1/hosts/asker/agents", {"agents": {}}, 422),
        ("DELETE", "/v1/hosts/asker", None, 405),
    ],
)
def test_what_cannot_be_done_is_told_as_a_problem(
    shared_service: Service, host: str, method: str, path: str, body: Any, status: int
) -> None:
    found, told, headers = shared_service.exchange(method, path, body)
    assert (found, headers["Content-Type"]) == (status, "application/problem+json"), told
    assert told["status"] == status
    assert told["detail"]


def test_a_spec_that_cannot_be_read_is_an_agent_that_ended_and_holds_up_no_other(
    shared_service: Service, host: str
) -> None:
    specs = [
        {"agent_id": "half"},
        {"agent_id": "../x", "cluster_id": "c", "group_name": "g", "role": "r", "queue": "q"},
    ]
    status, found = shared_service.request("POST", f"{host}/agents", {"agents": specs})
    assert status == 200
    assert [(one["agent_id"], one["phase"]) for one in found["agents"]] == [("half", "ended"), ("../x", "ended")]
    assert all("cannot read its spec" in one["reason"] for one in found["agents"])
    assert shared_service.request("POST", f"{host}/agents/remove", {"agent_ids": ["half"]})[0] == 200
