"""The dialect of the reference, ``POST /api/genesis/spawn``: with our own service, and with one that knows no more."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.broker import names
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine
from brain_clusters.errors import InvalidInput
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.jobs import HANDLER
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Phase
from brain_clusters.genesis.remote.spawn import body_of, seed_of
from tests.integration.genesis_service import Service, remote, running_service

BLUEPRINT = f"""
metadata: {{id: errands, name: Errands, version: "1"}}
cluster: {{type: project, min_workers: 1, max_workers: 5}}
agents:
  - {{role: supervisor, name: Head, count: 1}}
  - {{role: worker, name: Clerks, count: 0-4, handler: "{HANDLER}", config: {{pace: slow, tone: kind}}}}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, until: Callable[..., Any], redis_url: str) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "errands.yaml").write_text(BLUEPRINT)
    variables = {
        "BRAIN_REDIS_URL": redis_url,
        "BRAIN_BLUEPRINTS_PATH": str(folder),
        "BRAIN_BEAT_INTERVAL_SECONDS": "0.2",
        "BRAIN_BEAT_STALE_SECONDS": "1",
    }
    with running_service(folder, until, **variables) as found:
        yield found


@pytest.fixture
def stage_at(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """A function that returns a host whose driver speaks the dialect to the service at a URL."""
    made: list[Stage] = []

    def make(url: str, **settings: Any) -> Stage:
        quick = {"start_timeout_seconds": 60.0, "beat_stale_seconds": 1.0, **settings}
        ground = Ground(
            factory=remote(url, genesis_dialect="spawn", **quick), engine=Engine(driver="remote"), redis_url=redis_url,
            agents_redis_url=redis_url, home=tmp_path, patience_seconds=60,
        )  # fmt: skip
        made.append(Stage(ground, "a"))
        return made[-1]

    yield make
    for stage in made:
        stage.clear()


@pytest.fixture
def stage(service: Service, stage_at: Callable[..., Stage]) -> Stage:
    return stage_at(service.url)


def started(stage: Stage, **fields: Any) -> str:
    """Return the id of an agent that consumes."""
    (agent,) = stage.start(spec(stage, **fields))
    stage.until_consuming([agent])
    return agent


def spec(stage: Stage, **fields: Any) -> AgentSpec:
    return stage.spec(**{"blueprint_id": "errands", **fields})


def pid(stage: Stage, agent: str) -> int:
    beat = stage.beat(agent)
    assert beat
    return int(json.loads(beat)["pid"])


# --- against our own service --------------------------------------------------------------------------------------


def test_an_agent_that_is_spawned_does_jobs_of_its_queue_and_is_spawned_once(stage: Stage) -> None:
    one = spec(stage)
    stage.start(one)
    stage.until_consuming([one.agent_id])
    process = pid(stage, one.agent_id)
    stage.start(one)
    stage.does(one.agent_id)
    assert pid(stage, one.agent_id) == process
    assert stage.sighted().keys() == {one.agent_id}


def test_it_drains_and_goes_on_by_the_word_in_redis(stage: Stage) -> None:
    agent = started(stage)
    job = stage.send(agent, "wait")
    stage.until(lambda: job in stage.begun(), "it works")
    stage.call(stage.driver.drain, [agent])
    stage.until_draining(agent, draining=True)
    stage.call(stage.driver.resume, [agent])
    stage.until_draining(agent, draining=False)
    stage.call(stage.driver.stop, [agent])
    stage.open_gate(job)
    stage.until_done(job)
    assert stage.until_ended(agent).code is None


def test_one_that_is_busy_is_killed_by_the_service_which_returns_its_job(stage: Stage) -> None:
    agent = started(stage)
    job = stage.send(agent, "wait")
    stage.until(lambda: job in stage.begun(), "it works")
    stage.call(stage.driver.stop, [agent], now=True)
    stage.until_ended(agent)
    queue = f"{stage.keys}:{agent}"
    stage.until(lambda: stage.redis.llen(queue) == 1, "its job is back, though no host has returned it")


def test_its_death_is_seen_by_its_beats(stage: Stage) -> None:
    agent = started(stage)
    os.kill(pid(stage, agent), signal.SIGKILL)
    ended = stage.until_ended(agent)
    assert ended.reason == "its beats ceased"
    stage.call(stage.driver.remove, [agent])
    assert stage.redis.exists(names.drain_key(agent)), "one that was only out of sight is to leave"


def test_the_next_host_finds_those_that_beat(stage: Stage) -> None:
    agent = started(stage)
    stage.close()
    stage.open()
    assert stage.sighted([agent, "nobody"]).keys() == {agent}
    stage.until_consuming([agent])
    stage.does(agent)


def test_a_blueprint_that_the_service_does_not_have_is_told(stage: Stage) -> None:
    failing, good = spec(stage, blueprint_id="elsewhere"), spec(stage)
    stage.start(failing, good)
    assert "there is no blueprint elsewhere here" in str(stage.until_ended(failing.agent_id).reason)
    stage.until_consuming([good.agent_id])


def test_a_caller_of_the_reference_can_spawn_an_agent(
    service: Service, stage: Stage, until: Callable[..., Any]
) -> None:
    body = {
        "blueprint_id": "errands",
        "agent_id": "fleet_alpha",
        "trait_overrides": {"brain.group": "clerks", "pace": "fast", "performance.speed_priority": 0.8},
        "seed": 42,
    }
    for _ in range(2):
        status, told = service.request("POST", "/api/genesis/spawn", body)
        assert status == 201
        assert told == told | {"agent_id": "fleet_alpha", "seed": 42, "queue": "brain.errands.clerks"}
    until(lambda: stage.beat("fleet_alpha"), "it beats")
    assert service.request("DELETE", "/api/genesis/agents/fleet_alpha")[0] == 204
    until(lambda: not stage.beat("fleet_alpha"), "it is gone")
    missing = {**body, "trait_overrides": {}}
    status, told = service.request("POST", "/api/genesis/spawn", missing)
    assert status == 422
    assert "Head, Clerks" in told["detail"]


# --- against a service that only knows how to spawn ---------------------------------------------------------------


class Bare(ThreadingHTTPServer):
    """Answers POST /api/genesis/spawn with ``status``, whatever else with 404, and starts nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[Any] = []
        super().__init__(("127.0.0.1", 0), _BareHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _BareHandler(BaseHTTPRequestHandler):
    server: Bare

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self._answer(self.server.status, {"agent_id": body["agent_id"], "dna": {"id": "1"}})

    def do_DELETE(self) -> None:
        self._answer(404, {"detail": "Not Found"})

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bare() -> Iterator[Bare]:
    with Bare() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_one_that_never_beats_has_ended_and_is_told_to_leave(bare: Bare, stage_at: Callable[..., Stage]) -> None:
    stage = stage_at(bare.url, start_timeout_seconds=1.0)
    (agent,) = stage.start(spec(stage))
    assert stage.told[agent].phase is Phase.STARTING
    assert "no beat of it came in 1 s" in str(stage.until_ended(agent).reason)
    assert bare.bodies == [body_of(spec(stage)) | bare.bodies[0]]


def test_what_a_service_without_other_calls_spawned_is_ended_by_the_word_alone(
    bare: Bare, stage_at: Callable[..., Stage]
) -> None:
    stage = stage_at(bare.url)
    (agent,) = stage.start(spec(stage))
    beat = names.beat_key(agent)
    stage.redis.set(beat, json.dumps({"in_flight": 0, "completed": 0, "failed": 0, "idle_since": 0}))
    stage.until_consuming([agent])
    stage.call(stage.driver.stop, [agent], now=True)
    assert stage.redis.exists(names.drain_key(agent))
    stage.until_quiet()
    assert agent not in stage.ends
    stage.redis.delete(beat)
    stage.until_ended(agent)


def test_one_that_the_service_has_already_counts_as_spawned(bare: Bare, stage_at: Callable[..., Stage]) -> None:
    bare.status = 409
    stage = stage_at(bare.url)
    (agent,) = stage.start(spec(stage))
    assert "first beat" in str(stage.told[agent].reason)
    stage.call(stage.driver.remove, [agent])


def test_a_service_that_is_overloaded_gets_the_agent_again_with_the_same_seed(
    bare: Bare, stage_at: Callable[..., Stage]
) -> None:
    bare.status = 503
    stage = stage_at(bare.url)
    (agent,) = stage.start(spec(stage))
    assert "answered 503" in str(stage.told[agent].reason)
    bare.status = 200
    stage.until(lambda: "first beat" in str(stage.told[agent].reason), "it is spawned")
    assert all(body == bare.bodies[0] for body in bare.bodies)
    assert bare.bodies[0]["seed"] == seed_of(agent)
    stage.call(stage.driver.remove, [agent])


# --- what is asked for --------------------------------------------------------------------------------------------


def asked(**fields: Any) -> dict[str, Any]:
    return body_of(
        AgentSpec(agent_id="a.1", cluster_id="c", group_name="G", role="worker", queue="brain.c.g", **fields)
    )


def test_blueprint_and_traits_come_from_the_groups_config() -> None:
    ours = {"brain.cluster_id": "c", "brain.group": "G", "brain.queue": "brain.c.g"}
    plain = asked(blueprint_id="b", config={"speed": 0.8, "tools": ["x"]})
    assert plain == {
        "blueprint_id": "b", "agent_id": "a.1", "trait_overrides": {"speed": 0.8, **ours}, "seed": seed_of("a.1"),
    }  # fmt: skip
    stated = asked(
        blueprint_id="b", config={"genesis_blueprint": "fleet_v1", "trait_overrides": {"x.y": 1}, "tone": "kind"}
    )
    assert (stated["blueprint_id"], stated["trait_overrides"]) == ("fleet_v1", {"x.y": 1, **ours})
    assert 0 <= seed_of("a.1") < 2**31
    with pytest.raises(InvalidInput, match="genesis_blueprint"):
        asked(config={"genesis_blueprint": 7})
