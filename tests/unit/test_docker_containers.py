"""Docker without an engine: what a blueprint may say, what containers are made with, and what errors mean."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.config import Settings
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.errors import InvalidInput, PermanentError
from brain_clusters.genesis.docker.containers import sighting_of
from brain_clusters.genesis.docker.daemon import in_words
from brain_clusters.genesis.docker.recipe import Owner, Recipe
from brain_clusters.genesis.driver import Kit, Phase

OWNER = Owner("an installation", "a host")
GIB = 1024**3


def arguments(settings: dict[str, Any] | None = None, **engine: Any) -> dict[str, Any]:
    """Return what the container of an agent is created with, on an engine with 8 GiB."""
    agent = {"redis_url": "redis://:secret@redis.example:6379/0"}
    kit = Kit(Settings(home=Path("/nowhere"), **settings or {}), "a host", agent, {"HERE": "a value"}, None)  # type: ignore[arg-type]
    spec = AgentSpec(
        agent_id="shop.clerks.1a2b", cluster_id="shop", group_name="Clerks", role="worker", queue="q",
        engine=Engine("docker", **engine),
    )  # fmt: skip
    with APIClient(version="1.41") as api:
        return Recipe(kit, OWNER, api, memory_bytes=8 * GIB).arguments(spec)


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_any_two_agents_have_names_of_their_own_that_docker_takes(one: str, two: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}", OWNER.name(one))
    assert (OWNER.name(one) == OWNER.name(two)) == (one == two)
    assert OWNER.name(one) != Owner("another", "a host").name(one)


def test_the_image_is_the_groups_else_that_of_the_settings_else_ours() -> None:
    from brain_clusters import __version__

    assert arguments({"agent_image": "agents:7"}, image="mine:1")["image"] == "mine:1"
    assert arguments({"agent_image": "agents:7"})["image"] == "agents:7"
    assert arguments()["image"] == f"brain-clusters:{__version__}"


def test_the_network_is_the_groups_else_that_of_the_settings_else_the_engines() -> None:
    def network(settings: dict[str, Any], **docker: Any) -> Any:
        return arguments(settings, docker=docker)["host_config"].get("NetworkMode")

    assert network({"docker_network": "back"}, network="front") == "front"
    assert network({"docker_network": "back"}) == "back"
    assert network({}) == "default"


def test_redis_on_loopback_is_reached_by_the_network_of_the_host_only() -> None:
    for address in ("redis://127.0.0.1:6379/0", "redis://localhost/0", "redis://[::1]:6379/0"):
        with pytest.raises(PermanentError, match="BRAIN_AGENT_REDIS_URL"):
            arguments({"agent_redis_url": address})
        assert arguments({"agent_redis_url": address, "docker_network": "host"})["environment"]


def test_redis_is_opened_by_a_variable_of_its_own() -> None:
    given_ = arguments()["environment"]
    assert given_["BRAIN_AGENT_REDIS_URL"] == "redis://:secret@redis.example:6379/0"
    assert "secret" not in given_["BRAIN_AGENT"]


def test_variables_are_resolved_where_the_host_runs(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from a file\n")
    asked = {"TEXT": "as it is", "NAME": "env:HERE", "TOKEN": f"file:{path}"}
    found = arguments(environment=asked)["environment"]
    assert {key: found[key] for key in asked} == {"TEXT": "as it is", "NAME": "a value", "TOKEN": "from a file"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("env:NOWHERE", "environment: TOKEN: env:NOWHERE is not set"),
        ("file:/no/such/file", "environment: TOKEN: file:/no/such/file cannot be read"),
        ("secret:a/b", "environment: TOKEN: secret:a/b is for Kubernetes"),
    ],
)
def test_a_variable_that_cannot_be_had_is_refused_by_its_name(text: str, words: str) -> None:
    with pytest.raises(PermanentError, match=re.escape(words)):
        arguments(environment={"TOKEN": text})


def test_a_value_that_no_variable_can_have_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("canary\0canary")
    with pytest.raises(PermanentError, match="environment: TOKEN: what file: gives holds a NUL character") as refused:
        arguments(environment={"TOKEN": f"file:{path}"})
    assert "canary" not in str(refused.value)


def test_more_memory_than_the_machine_has_is_refused() -> None:
    assert arguments(resources=Resources(memory_bytes=8 * GIB))["host_config"]["Memory"] == 8 * GIB
    with pytest.raises(PermanentError, match=r"asks for 16 GiB of memory, and the machine of the engine has 8 GiB"):
        arguments(resources=Resources(memory_bytes=16 * GIB))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ('exec: "python": executable file not found in $PATH: unknown', "has no python"),
        ("invalid mount config: bind source path does not exist: /srv/x", "its volume /srv/x does not exist"),
        ("network back not found", "the engine has no network back"),
        ("fork/exec /usr/bin/runc: cannot allocate memory", "no memory left"),
        ("mkdir /var/lib/docker/x: no space left on device", "the disk of the engine is full"),
    ],
)
def test_what_engines_say_is_put_into_words(told: str, words: str) -> None:
    assert words in str(in_words(told))


def test_what_is_not_known_is_left_to_the_engines_own_words() -> None:
    assert in_words("something else") is None


@pytest.mark.parametrize(
    ("status", "code", "memory_killed", "phase", "expected", "reason"),
    [
        ("created", 0, False, Phase.STARTING, None, None),
        ("running", 0, False, Phase.RUNNING, None, None),
        ("paused", 0, False, Phase.RUNNING, None, None),
        ("exited", 0, False, Phase.ENDED, 0, "exited with 0 unasked"),
        ("exited", 78, False, Phase.ENDED, 78, "exited with 78 unasked"),
        ("exited", 137, False, Phase.ENDED, -signal.SIGKILL, "killed by SIGKILL"),
        ("exited", 137, True, Phase.ENDED, -signal.SIGKILL, "out of memory: it may use 256 MiB"),
        ("exited", 255, False, Phase.ENDED, 255, "exited with 255 unasked"),
        ("removing", 0, False, Phase.ENDED, 0, "exited with 0 unasked"),
        ("dead", 143, False, Phase.ENDED, -signal.SIGTERM, "killed by SIGTERM"),
    ],
)
def test_a_state_of_a_container_is_a_phase_of_its_agent(
    status: str, code: int, memory_killed: bool, phase: Phase, expected: int | None, reason: str | None
) -> None:
    found = sighting_of(
        {
            "Id": "1a2b",
            "Config": {"Labels": OWNER.labels(_spec())},
            "HostConfig": {"Memory": 256 * 1024**2},
            "State": {"Status": status, "ExitCode": code, "OOMKilled": memory_killed},
        }
    )
    assert (found.agent_id, found.handle) == ("shop.clerks.1a2b", {"container": "1a2b"})
    assert (found.phase, found.code, found.reason) == (phase, expected, reason)


def _spec() -> AgentSpec:
    return AgentSpec(agent_id="shop.clerks.1a2b", cluster_id="shop", group_name="Clerks", role="worker", queue="q")


BLUEPRINT = """
metadata: {{id: small, name: Small, version: "1"}}
cluster: {{type: project, min_workers: 1, max_workers: 5}}
agents:
  - role: supervisor
    name: Boss
    driver: docker
    docker: {docker}
"""


def test_a_blueprint_may_say_how_its_containers_are_run() -> None:
    said = """
      {pull: always, network: back, user: "1000:1000", read_only: true,
       volumes: ["/srv/a b:/app:ro", "data:/data", "/x:/y:rw"], labels: {team.example/blue: ""},
       extra_hosts: {models: host-gateway, six: "fd00::1"}, cap_add: [NET_BIND_SERVICE], shm_size: 1GB, gpus: all}
    """
    found = parse_blueprint(BLUEPRINT.format(docker=said)).groups[0].engine.docker
    assert found["volumes"][0] == "/srv/a b:/app:ro"
    assert found["gpus"] == "all"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{pull: sometimes}", "pull"),
        ("{network: 'container:other'}", "must be `host` or the name of a network"),
        ("{user: 'a b'}", "must be a name or number, or USER:GROUP"),
        ("{volumes: ['relative/path:/app']}", "must be SOURCE:TARGET"),
        ("{volumes: ['/srv:app']}", "must be SOURCE:TARGET"),
        ("{volumes: ['/srv:/app:z']}", "must be SOURCE:TARGET"),
        ("{labels: {io.brain-clusters.agent: other}}", "not begin with io.brain-clusters."),
        ("{extra_hosts: {models: nowhere}}", "must be an address, or `host-gateway`"),
        ("{cap_add: [sys admin]}", "must be one of AUDIT_WRITE, CHOWN"),
        ("{cap_add: [SYS_ADMIN]}", "must be one of AUDIT_WRITE, CHOWN"),
        ("{shm_size: much}", "must be a size"),
        ("{gpus: 0}", "must be a number of GPUs from 1 to 64, or `all`"),
        ("{gpus: true}", "gpus"),
        ("{privileged: true}", "privileged"),
    ],
)
def test_what_no_container_can_be_run_with_is_refused(said: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_blueprint(BLUEPRINT.format(docker=said))
    assert words in refused.value.faults[0].message


ALLOWED = {"docker_volumes": ("/srv/shop", "models")}


@pytest.mark.parametrize("volume", ["/srv/shop:/a", "/srv/shop/b/c:/a:ro", "/srv/x/../shop:/a", "models:/a"])
def test_what_the_operator_allows_can_be_mounted(volume: str) -> None:
    [mount] = arguments(ALLOWED, docker={"volumes": [volume]})["host_config"]["Mounts"]
    assert mount["Source"] in ("/srv/shop", "/srv/shop/b/c", "models")


@pytest.mark.parametrize(
    "volume",
    ["/:/a", "/srv:/a", "/srv/shopping:/a", "/srv/shop/../x:/a", "/var/run/docker.sock:/s", "data:/a", "srv:/a"],
)
def test_nothing_else_can_be_mounted(volume: str) -> None:
    with pytest.raises(PermanentError, match=r"BRAIN_DOCKER_VOLUMES .*\(/srv/shop, models\); add it there"):
        arguments(ALLOWED, docker={"volumes": [volume]})
    with pytest.raises(PermanentError, match="it allows nothing"):
        arguments(docker={"volumes": [volume]})
