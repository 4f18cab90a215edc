"""The driver remote keeps the contract of drivers, over a real service with real agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.suite import DriverContract
from brain_clusters.genesis.driver import Factory
from tests.integration.genesis_service import Service, remote, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, until: Callable[..., Any]) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, until, CONTRACT_SOURCE="from the host's environment") as found:
        yield found


class TestRemoteDriver(DriverContract):
    @pytest.fixture
    def factory(self, service: Service) -> Factory:
        return remote(service.url)

    @pytest.fixture
    def engine(self) -> Engine:
        return Engine(driver="remote")
