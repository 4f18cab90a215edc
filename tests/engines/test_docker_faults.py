"""A Docker engine that is away, slow, busy or loses its replies: no agent is lost, none is there twice."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.docker import containers as seen_containers
from brain_clusters.genesis.docker.driver import DockerDriver
from brain_clusters.genesis.driver import Phase
from tests.engines.docker_cli import docker
from tests.engines.docker_proxy import Proxy

# The first of them may have to wait for the image to be built.
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
CREATE = r"^POST /v[0-9.]+/containers/create"
START = r"^POST /v[0-9.]+/containers/[^/]+/start"
EVENTS = r"^GET /v[0-9.]+/events"


@pytest.fixture
def proxy(docker_host: str) -> Iterator[Proxy]:
    proxy = Proxy(docker_host)
    yield proxy
    proxy.down()


@pytest.fixture
def stage(proxy: Proxy, image: str, redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """A host whose engine is behind ``proxy``."""
    password = urlsplit(redis_url).password
    assert password, "the tests' own Redis has one"
    ground = Ground(
        factory=DockerDriver.make, engine=Engine("docker", image, docker={"network": "host"}), home=tmp_path,
        redis_url=redis_url, agents_redis_url=redis_url, patience_seconds=90.0,
        environ={"DOCKER_HOST": proxy.address}, name=f"faults-{secrets.token_hex(4)}",
    )  # fmt: skip
    stage = Stage(ground, "a")
    yield stage
    stage.clear()


def containers(stage: Stage) -> list[str]:
    """Return the agents of every container there is, as the engine tells past our code."""
    ours = f"label=io.brain-clusters.host={stage.ground.name}-a"
    return docker("ps", "--all", "--filter", ours, "--format", '{{.Label "io.brain-clusters.agent"}}')


@pytest.mark.parametrize("request_", [CREATE, START], ids=["create", "start"])
def test_a_reply_that_is_lost_makes_no_second_container(stage: Stage, proxy: Proxy, request_: str) -> None:
    proxy.lose_reply(request_, times=3)
    agents = stage.start(*(stage.spec() for _ in range(3)))
    stage.until_consuming(agents)
    assert sorted(containers(stage)) == sorted(agents)
    for agent in agents:
        stage.does(agent)


# 409 of a start says that the container is being removed, and is final.
@pytest.mark.parametrize(
    ("request_", "status"), [(CREATE, 409), (CREATE, 429), (CREATE, 500), (START, 429), (START, 500), (START, 503)]
)
def test_an_engine_that_answers_with_errors_is_asked_again(
    stage: Stage, proxy: Proxy, request_: str, status: int
) -> None:
    proxy.answer(request_, status, times=2)
    agents = stage.start(*(stage.spec() for _ in range(2)))
    stage.until_consuming(agents)
    assert sorted(containers(stage)) == sorted(agents)
    assert not stage.ends


def test_an_engine_that_goes_on_answering_with_errors_is_given_up_with_its_words(stage: Stage, proxy: Proxy) -> None:
    proxy.answer(CREATE, 500, "the driver of disks has gone mad", times=100)
    (agent,) = stage.start(stage.spec())
    assert "the driver of disks has gone mad" in str(stage.until_ended(agent).reason)


def test_what_ends_while_the_stream_of_events_is_cut_is_told(stage: Stage, proxy: Proxy) -> None:
    lives, dies, vanishes = stage.agents(3)
    proxy.answer(EVENTS, 500, times=5)
    proxy.cut()
    stage.send(dies, "die")
    docker("rm", "--force", stage.told[vanishes].handle["container"])
    assert stage.until_ended(dies).code == 3
    stage.until_ended(vanishes)
    stage.until_quiet()
    assert stage.ends.keys() == {dies, vanishes}
    stage.does(lives)


def test_agents_go_on_while_the_engine_is_away_and_are_known_when_it_is_back(stage: Stage, proxy: Proxy) -> None:
    busy, job = stage.busy_agent()
    dies = stage.agent()
    proxy.down()
    for call in (lambda: stage.driver.sight(), lambda: stage.driver.stop([busy])):
        with pytest.raises(TemporaryError, match="start it, or set DOCKER_HOST"):
            call()
    waits = stage.spec()
    stage.start(waits)
    stage.until(lambda: stage.told[waits.agent_id].reason, "it is told what is waited for")
    assert stage.told[waits.agent_id].phase is Phase.STARTING
    assert "no Docker engine answers" in str(stage.told[waits.agent_id].reason)
    stage.send(dies, "die")
    stage.until_beats(busy, 3)
    assert not stage.ends
    proxy.up()
    assert stage.until_ended(dies).code == 3
    stage.until_consuming([waits.agent_id])
    stage.open_gate(job)
    stage.until_done(job)
    assert sorted(containers(stage)) == sorted([busy, dies, waits.agent_id])
    assert stage.ends.keys() == {dies}


def test_what_is_stopped_before_the_engine_is_back_leaves_nothing(stage: Stage, proxy: Proxy) -> None:
    proxy.down()
    (agent,) = stage.start(stage.spec())
    stage.driver.stop([agent])
    proxy.up()
    stage.until_ended(agent)
    stage.until(lambda: containers(stage) == [], "nothing is there")


def test_a_connection_that_is_dead_without_a_word_is_noticed(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_containers, "_SILENCE_SECONDS", 2.0)
    agent = stage.agent()
    proxy.cut()  # so that the next stream is as impatient
    seen = len(proxy.requests)
    stage.until(lambda: [line for line in proxy.requests[seen:] if re.search(EVENTS, line)], "it is followed again")
    with proxy.mute():
        docker("rm", "--force", stage.told[agent].handle["container"])
    stage.until_ended(agent)


def test_a_host_waits_for_an_engine_that_is_away_when_it_starts(stage: Stage, proxy: Proxy) -> None:
    agent = stage.agent()
    stage.close()
    proxy.down()
    driver = DockerDriver.make(stage.ground.kit(f"{stage.ground.name}-a", None))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(TemporaryError, match="start it, or set DOCKER_HOST"):
            driver.open()
    proxy.up()
    driver.open()
    assert [one.agent_id for one in driver.sight()] == [agent]
    driver.close()


def test_what_could_not_be_removed_is_removed_later(stage: Stage, proxy: Proxy) -> None:
    agent = stage.agent()
    stage.driver.stop([agent], now=True)
    stage.until_ended(agent)
    proxy.down()
    stage.driver.remove([agent])
    proxy.up()
    stage.until(lambda: containers(stage) == [], "its container is gone")
