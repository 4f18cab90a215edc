"""Which drivers there are, and what is said of one that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from brain_clusters import drivers
from brain_clusters.cli import main
from brain_clusters.config import Settings
from brain_clusters.errors import ConfigError
from brain_clusters.genesis.driver import Driver

SCRIPT = """
from brain_clusters import drivers
found = drivers.installed()
print(sorted(found), found["acme"].load()(None), found["process"].value)
"""


def test_our_drivers_are_there_by_name() -> None:
    assert {"process", "docker", "kubernetes", "remote"} <= drivers.installed().keys()
    factory = drivers.installed()["process"].load()
    assert issubclass(factory.__self__, Driver)


def test_a_package_brings_a_driver_by_an_entry_point_and_cannot_take_the_name_of_ours(tmp_path: Path) -> None:
    (tmp_path / "acme_driver.py").write_text("def make(kit):\n    return 'a driver'\n")
    metadata = tmp_path / "acme_driver-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-driver\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[brain_clusters.drivers]\nacme = acme_driver:make\nprocess = acme_driver:make\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert "'acme'" in done.stdout
    assert "a driver brain_clusters.genesis.process" in done.stdout


def test_a_host_of_a_driver_that_is_not_installed_is_refused_with_the_names_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_HOME", str(tmp_path))
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("BRAIN_REDIS_URL", "redis://127.0.0.1:1/0")
    result = CliRunner().invoke(main, ["host", "--driver", "dokcer"])
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "--driver" in told
    assert "must be a driver that is installed here (docker, kubernetes, process, remote; did you mean docker?)" in told


@pytest.mark.parametrize("text", ["nonsense", "process,nonsense"])
def test_the_setting_of_drivers_names_installed_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="BRAIN_DRIVERS"):
        Settings.from_env({"BRAIN_DRIVERS": text})


def test_the_setting_of_drivers_takes_several_and_each_once() -> None:
    assert Settings.from_env({"BRAIN_DRIVERS": "docker,process,docker"}).drivers == ("docker", "process")
    assert Settings.from_env({"BRAIN_DRIVERS": " process , docker"}).drivers == ("process", "docker")


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_up_refuses_a_driver_whose_package_is_missing_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BRAIN_DRIVERS", f"process,{name}")
    monkeypatch.setitem(sys.modules, name, None)
    result = CliRunner().invoke(main, ["up", "--port", "0"])
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert f"the driver {name} needs the package {name}, which is not installed here" in told
    assert f"{sys.executable} -m pip install 'brain-clusters[{name}]'" in told
    assert not (tmp_path / "home" / "postgres").exists()


@pytest.mark.parametrize("name", ["process", "docker", "kubernetes", "remote"])
def test_a_driver_whose_packages_are_there_is_usable(name: str) -> None:
    drivers.check_usable(name)
