"""The whole story on Docker."""

from __future__ import annotations

import secrets

import pytest

from tests.engines.docker_cli import docker
from tests.engines.story import EngineStory, EngineUnderTest

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
_HOST = "io.brain-clusters.host"
_AGENT = "io.brain-clusters.agent"
_CLUSTER = "io.brain-clusters.cluster"


class TestStoryOnDocker(EngineStory):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, image: str) -> EngineUnderTest:
        host = f"story-{secrets.token_hex(4)}"
        ours = f"label={_HOST}={host}.docker"

        def agents(cluster: str) -> set[str]:
            shown = f'{{{{.Label "{_AGENT}"}}}}'
            return set(docker("ps", "--filter", ours, "--filter", f"label={_CLUSTER}={cluster}", "--format", shown))

        def kill(agent: str) -> None:
            (container,) = docker("ps", "--quiet", "--filter", f"label={_AGENT}={agent}")
            docker("kill", container)

        return EngineUnderTest(
            driver="docker",
            variables={
                "BRAIN_DRIVERS": "process,docker",
                "BRAIN_AGENT_IMAGE": image,
                "BRAIN_DOCKER_NETWORK": "host",
                "BRAIN_HOST_ID": host,
            },
            agents=agents,
            kill=kill,
            leftovers=lambda: docker("ps", "--all", "--filter", ours, "--format", "{{.Names}} {{.Status}}"),
            unstartable=({"image": "brain-clusters-test:no-such-image"}, "no-such-image"),
        )
