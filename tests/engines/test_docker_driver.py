"""The Docker driver on a real engine: it keeps the contract of drivers, and what only Docker has."""

from __future__ import annotations

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.suite import DriverContract
from brain_clusters.genesis.driver import Factory

pytestmark = pytest.mark.engines


class TestDockerDriver(DriverContract):
    @pytest.fixture
    def factory(self, docker_host: str) -> Factory:
        from brain_clusters.genesis.docker.driver import DockerDriver

        return DockerDriver.make

    @pytest.fixture
    def engine(self, image: str) -> Engine:
        return Engine("docker", image, docker={"network": "host"})
