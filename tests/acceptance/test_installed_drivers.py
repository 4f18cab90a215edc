"""A driver that another package brings: found by its name, used by a blueprint, from create to destroy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .brain import Brain

# What an installed package looks like: a module, and beside it the metadata with its entry point.
MODULE = "from brain_clusters.examples.plain_driver import PlainDriver as Driver\n"
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: acme-driver\nVersion: 1.0\n",
    "entry_points.txt": "[brain_clusters.drivers]\nacme = acme_driver:Driver\n",
}
BLUEPRINT = """
metadata: {id: forge, name: A forge, version: "1"}
cluster: {type: department, min_workers: 1, max_workers: 3, default_workers: 2, driver: acme}
agents:
  - {role: supervisor, name: Head, count: 1, driver: process}
  - {role: worker, name: Smiths, count: 1-3, command: [cat], environment: {FORGED_BY: acme}}
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages with the driver ``acme``."""
    metadata = tmp_path / "acme_driver-1.0.dist-info"
    metadata.mkdir()
    for name, text in METADATA.items():
        (metadata / name).write_text(text)
    (tmp_path / "acme_driver.py").write_text(MODULE)
    return tmp_path


def test_a_cluster_lives_on_a_driver_that_a_package_brings(brain_with: Callable[..., Brain], installed: Path) -> None:
    brain = brain_with(BRAIN_DRIVERS="process,acme", PYTHONPATH=str(installed))
    assert brain.call("POST", "/api/blueprints", {"yaml": BLUEPRINT}).status == 201
    cluster = brain.cluster("forge")
    assert {agent["group"]: agent["driver"] for agent in brain.agents(cluster)} == {"Head": "process", "Smiths": "acme"}
    job = brain.outcome(brain.job(cluster, to="Smiths", text="iron"))
    assert job["result"] == {"text": "iron"}
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 3})
    brain.kill_child("host acme")
    assert brain.outcome(brain.job(cluster, to="Smiths"))["attempts"] == 1
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    assert brain.outcome(brain.job(cluster, to="Smiths"))["status"] == "succeeded"
    brain.command("DELETE", f"/api/clusters/{cluster}")
    # What is left is the file by which the host, which runs on, is known.
    assert [path.name for path in (brain.home / "run" / "acme").iterdir()] == ["host.held"]
