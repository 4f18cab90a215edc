"""The Kubernetes driver on a real cluster: it keeps the contract of drivers, and what only Kubernetes has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.suite import DriverContract
from brain_clusters.genesis.driver import Factory, Kit
from tests.engines.kube import Kube

pytestmark = pytest.mark.engines


class TestKubernetesDriver(DriverContract):
    @pytest.fixture
    def factory(self, kube: Kube) -> Factory:
        from brain_clusters.genesis.kubernetes.driver import KubernetesDriver

        def make(kit: Kit) -> KubernetesDriver:
            return KubernetesDriver.make(
                replace(kit, settings=replace(kit.settings, kubernetes_namespace=kube.namespace))
            )

        return make

    @pytest.fixture
    def engine(self, image: str) -> Engine:
        return Engine("kubernetes", image, pod={"host_network": True})
