"""The engines, where there are any. Without, these tests skip on a laptop and fail in CI, which says it has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.engines.images import agent_image
from tests.engines.kube import Kube

# Before it is imported: what its assertions compare is told as in a test file.
pytest.register_assert_rewrite("tests.engines.story")


def _missing(what: str) -> None:
    """Skip, or fail where BRAIN_TEST_ENGINES says that both engines have to be there."""
    if os.environ.get("BRAIN_TEST_ENGINES"):
        pytest.fail(f"{what}, though BRAIN_TEST_ENGINES is set")
    pytest.skip(f"{what}; docs/drivers.md tells how to run the tests of engines")


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The address of a Docker engine that answers."""
    address = os.environ.get("DOCKER_HOST")
    if not address or shutil.which("docker") is None:
        _missing("DOCKER_HOST is not set, or there is no docker command")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        _missing(f"no Docker engine answers at {address}")
    return str(address)


@pytest.fixture(scope="session")
def image(docker_host: str) -> str:
    """The tag of an image of this code, which the engine of ``docker_host`` has."""
    assert docker_host
    return agent_image()


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The file of a Kubernetes that answers. Its nodes must have ``image``, or BRAIN_TEST_IMAGE names one to pull."""
    path = os.environ.get("KUBECONFIG")
    if not path or shutil.which("kubectl") is None:
        _missing("KUBECONFIG is not set, or there is no kubectl command")
    if subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, check=False).returncode:
        _missing(f"no Kubernetes answers by {path}")
    return str(path)


@pytest.fixture(scope="session")
def kube(kubeconfig: str) -> Iterator[Kube]:
    """A namespace for the whole run, deleted at its end."""
    assert kubeconfig
    with Kube.made() as found:
        yield found
