"""The Docker driver on a real engine: it keeps the contract of drivers, and what only Docker has."""

from __future__ import annotations

import gc
import json
import os
import re
import secrets
import socket
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.errors import BrainError, PermanentError, TemporaryError
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.contract.suite import DriverContract
from brain_clusters.genesis.docker.daemon import connect
from brain_clusters.genesis.docker.driver import DockerDriver
from brain_clusters.genesis.docker.recipe import Owner
from brain_clusters.genesis.driver import Driver, Factory, Kit, Phase
from tests.engines.docker_cli import docker, inspect

# The first of them may have to wait for the image to be built.
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
_MIB = 1024**2
NO_IMAGE = "brain-clusters-test:no-such-image"


class TestDockerDriver(DriverContract):
    patience_seconds = 90.0

    @pytest.fixture
    def factory(self) -> Factory:
        return DockerDriver.make

    @pytest.fixture
    def engine(self, image: str) -> Engine:
        return Engine("docker", image, docker={"network": "host"})


@pytest.fixture
def ground(image: str, redis_url: str, tmp_path: Path) -> Ground:
    found = urlsplit(redis_url)
    url = (
        redis_url if found.password else found._replace(netloc=f"default:hidden-{secrets.token_hex(8)}@{found.netloc}")
    )
    address = url if isinstance(url, str) else url.geturl()

    def make(kit: Kit) -> Driver:
        allowed = (str(tmp_path), "/no/such/folder")
        return DockerDriver.make(replace(kit, settings=replace(kit.settings, docker_volumes=allowed)))

    return Ground(
        factory=make, engine=Engine("docker", image, docker={"network": "host"}), home=tmp_path,
        redis_url=address, agents_redis_url=address, patience_seconds=90.0, environ={"A_SECRET": "canary-4711"},
    )  # fmt: skip


@pytest.fixture
def stage(ground: Ground) -> Iterator[Stage]:
    stage = Stage(ground, "a")
    yield stage
    stage.clear()


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder of handlers, as a user mounts it."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "handlers.py").write_text(
        "def eat(payload, context):\n    held = []\n    while True:\n        held.append(bytearray(4 * 1024 * 1024))\n"
    )
    (folder / "handlers.py").chmod(0o644)
    return folder


def engine_with(stage: Stage, *, image: str | None = None, memory: int | None = None, **keys: Any) -> Engine:
    """Return the engine of ``stage`` with other keys of ``docker:`` and without those that are None."""
    asked = {key: value for key, value in {**stage.ground.engine.docker, **keys}.items() if value is not None}
    found = replace(stage.ground.engine, docker=asked, resources=Resources(memory_bytes=memory))
    return replace(found, image=image) if image else found


def refused(stage: Stage, **fields: Any) -> str:
    """Return the reason of an agent that cannot be started."""
    (agent,) = stage.start(stage.spec(**fields))
    ended = stage.until_ended(agent)
    assert ended.reason
    return ended.reason


def container(stage: Stage, agent: str) -> str:
    return str(stage.told[agent].handle["container"])


# --- how it is run --------------------------------------------------------------------------------------------------


def test_a_container_is_named_labelled_and_bounded(stage: Stage) -> None:
    engine = replace(
        engine_with(
            stage, labels={"team": "blue"}, extra_hosts={"models": "10.1.2.3"}, cap_add=["CHOWN"], shm_size="96Mi",
        ),
        resources=Resources(0.5, 256 * _MIB), environment={"TOLD": "env:A_SECRET"},
    )  # fmt: skip
    (agent,) = stage.start(stage.spec(engine=engine))
    stage.until_consuming([agent])
    stage.does(agent)
    found = inspect(container(stage, agent))
    labels, limits = found["Config"]["Labels"], found["HostConfig"]
    ours = {key.removeprefix("io.brain-clusters."): text for key, text in labels.items() if "brain-clusters" in key}
    assert (
        ours | {"agent": agent, "cluster": stage.ground.name, "group": "Clerks", "host": f"{stage.ground.name}-a"}
        == ours
    )
    assert labels["team"] == "blue"
    assert agent in found["Name"]
    assert (limits["NanoCpus"], limits["Memory"], limits["MemorySwap"]) == (500_000_000, 256 * _MIB, 256 * _MIB)
    assert limits["ShmSize"] == 96 * _MIB
    assert limits["CapDrop"] == ["ALL"]
    assert limits["CapAdd"] in (["CHOWN"], ["CAP_CHOWN"])
    assert limits["SecurityOpt"] == ["no-new-privileges:true"]
    assert limits["Init"]
    assert 0 < limits["PidsLimit"] <= 4096
    assert limits["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    assert limits["ExtraHosts"] == ["models:10.1.2.3"]
    assert "TOLD=canary-4711" in found["Config"]["Env"]


def test_no_secret_is_in_labels_reasons_or_what_the_agent_is_given_as_json(stage: Stage) -> None:
    engine = replace(stage.ground.engine, environment={"TOLD": "env:A_SECRET"})
    (agent,) = stage.start(stage.spec(engine=engine))
    stage.until_consuming([agent])
    found = inspect(container(stage, agent))
    given = next(each for each in found["Config"]["Env"] if each.startswith("BRAIN_AGENT="))
    told = json.dumps([given, found["Config"]["Labels"], found["Args"], repr(stage.told)])
    for secret in ("canary-4711", str(urlsplit(stage.ground.redis_url).password)):
        assert secret not in told
    # Two that cannot be: by what it asks for, and by what the engine says to that.
    asked = replace(engine_with(stage, volumes=["/no/such/folder:/app"]), environment={"TOLD": "env:A_SECRET"})
    assert "canary-4711" not in refused(stage, engine=asked)


def test_handlers_are_mounted_and_nothing_else_can_be_written_to(stage: Stage, modules: Path) -> None:
    engine = engine_with(stage, volumes=[f"{modules}:/app:ro"], read_only=True, user="10002:10002")
    (agent,) = stage.start(stage.spec(engine=engine))
    stage.until_consuming([agent])
    stage.does(agent)
    name = container(stage, agent)
    assert docker("exec", name, "ls", "/app") == ["handlers.py"]
    assert docker("exec", name, "id", "-u") == ["10002"]
    assert docker("exec", name, "sh", "-c", "touch /app/x 2>&1 || echo no; touch /var/lib/brain/x 2>&1 || echo no")[
        1::2
    ] == [
        "no",
        "no",
    ]
    (hungry,) = stage.start(stage.spec(engine=engine, handler="handlers:eat"))
    stage.until_consuming([hungry])


def test_two_agents_never_share_a_name() -> None:
    here, there = Owner("one", "docker"), Owner("two", "docker")
    found = {
        owner.name(agent) for owner in (here, there) for agent in ("a b.1", "a-b.1", "a/b.1", "x" * 300, "x" * 301)
    }
    assert len(found) == 10
    assert all(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}", name) for name in found)


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_an_agent_that_uses_too_much_memory_is_told_to_have_done_so(stage: Stage, modules: Path) -> None:
    engine = engine_with(stage, memory=160 * _MIB, volumes=[f"{modules}:/app:ro"])
    (agent,) = stage.start(stage.spec(engine=engine, handler="handlers:eat"))
    stage.until_consuming([agent])
    stage.send(agent)
    ended = stage.until_ended(agent)
    assert ended.reason == "out of memory: it may use 160 MiB"
    assert ended.code == -9


def test_a_container_that_somebody_removes_has_ended(stage: Stage) -> None:
    agent = stage.agent()
    docker("rm", "--force", container(stage, agent))
    stage.until_ended(agent)
    assert stage.sighted()[agent].phase is Phase.ENDED
    stage.driver.remove([agent])
    assert stage.sighted() == {}


def test_a_container_that_a_killed_host_only_made_is_started_by_the_next(stage: Stage) -> None:
    spec = stage.spec()
    stage.start(spec)
    stage.until_consuming([spec.agent_id])
    name = inspect(container(stage, spec.agent_id))["Name"].lstrip("/")
    found = inspect(name)["Config"]
    stage.close()
    docker("rm", "--force", name)
    arguments = [f"--label={key}={text}" for key, text in found["Labels"].items()]
    arguments += [f"--env={each}" for each in found["Env"]]
    docker(
        "create",
        "--network=host",
        f"--name={name}",
        *arguments,
        "--entrypoint=python",
        found["Image"],
        "-m",
        "brain_clusters.agent.alone",
    )
    stage.open()
    stage.until_consuming([spec.agent_id])
    stage.does(spec.agent_id)


def test_two_installations_do_not_see_the_agents_of_each_other(stage: Stage, ground: Ground) -> None:
    agent = stage.agent()
    kit = ground.kit(f"{ground.name}-a", None)  # type: ignore[arg-type] - no word is told
    other = DockerDriver.make(replace(kit, installation=lambda: "another"))
    other.open()
    try:
        assert other.sight() == []
        other.stop([agent], now=True)
    finally:
        other.close()
    stage.does(agent)


# --- what cannot be run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image": NO_IMAGE}, r"no-such-image is not on the engine and cannot be pulled"),
        ({"image": NO_IMAGE, "pull": "never"}, r"no image .*no-such-image, and `pull: never`"),
        ({"image": "UPPER CASE"}, r"invalid reference format|repository name must be lowercase"),
        ({"memory": 64 * 1024**4}, r"asks for 65536 GiB of memory"),
        ({"memory": 1 * _MIB}, r"(?i)minimum memory limit"),
        ({"volumes": ["/no/such/folder:/app:ro"]}, r"volume /no/such/folder does not exist"),
        ({"volumes": ["/etc:/app:ro"]}, r"BRAIN_DOCKER_VOLUMES of its host does not allow"),
        ({"user": "nobody-of-that-name"}, r"nobody-of-that-name"),
        ({"gpus": 1}, r"no GPUs"),
        ({"network": None}, r"BRAIN_AGENT_REDIS_URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_ends_with_a_reason(stage: Stage, keys: dict[str, Any], words: str) -> None:
    assert re.search(words, refused(stage, engine=engine_with(stage, **keys)))


def test_a_network_that_is_not_there_is_told(ground: Ground) -> None:
    stage = Stage(replace(ground, agents_redis_url="redis://192.0.2.1:6379/0"), "a")
    assert "no network no-such-network; make it" in refused(stage, engine=engine_with(stage, network="no-such-network"))
    stage.clear()


def test_an_image_that_is_always_pulled_and_cannot_be_is_told(stage: Stage) -> None:
    assert "cannot be pulled" in refused(stage, engine=engine_with(stage, pull="always"))


def test_a_secret_of_kubernetes_is_refused(stage: Stage) -> None:
    engine = replace(stage.ground.engine, environment={"TOKEN": "secret:models/token"})
    assert "TOKEN: secret:models/token is for Kubernetes" in refused(stage, engine=engine)


# --- an engine that cannot be used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "kind", "words"),
    [
        ({"DOCKER_HOST": "unix:///no/such.sock"}, TemporaryError, "start it, or set DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:1"}, TemporaryError, "start it, or set DOCKER_HOST"),
        ({"DOCKER_HOST": "nonsense"}, PermanentError, "it is unix:///PATH, tcp://HOST:PORT"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:port"}, PermanentError, "it is unix:///PATH, tcp://HOST:PORT"),
        (
            {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no/folder"},
            PermanentError, "ca.pem",
        ),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_be_reached_is_told(
    variables: dict[str, str], kind: type[BrainError], words: str
) -> None:
    with warnings.catch_warnings():
        # The SDK leaves a socket that it could not connect to the collector of garbage.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(kind, match=words) as raised:
            connect(variables, timeout_seconds=5)
        del raised
        gc.collect()


def test_an_account_that_may_not_use_the_engine_is_told(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        read, write = os.pipe()
        child = os.fork()
        if not child:  # an account of no rights, as root has them all
            try:
                if os.geteuid() == 0:
                    os.setresuid(65534, 65534, 65534)
                connect({"DOCKER_HOST": f"unix://{path}"}, timeout_seconds=5)
            except PermanentError as exc:
                os.write(write, str(exc).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        told = os.read(read, 1000).decode()
        os.close(read)
    assert "add it to the group that owns the socket" in told
