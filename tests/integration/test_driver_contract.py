"""The process driver keeps the contract of drivers. Those of engines: tests/engines/test_driver_contract.py."""

from __future__ import annotations

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.examples.plain_driver import PlainDriver
from brain_clusters.genesis.contract.suite import DriverContract
from brain_clusters.genesis.driver import Factory
from brain_clusters.genesis.process.driver import ProcessDriver


class TestProcessDriver(DriverContract):
    @pytest.fixture
    def factory(self) -> Factory:
        return ProcessDriver.make

    @pytest.fixture
    def engine(self) -> Engine:
        return Engine()


class TestPlainDriver(DriverContract):
    @pytest.fixture
    def factory(self) -> Factory:
        return PlainDriver

    @pytest.fixture
    def engine(self) -> Engine:
        return Engine(driver="plain")
