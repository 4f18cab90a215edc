"""What a host finds that it has: the machine's cores and memory, or less by its cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brain_clusters.genesis.process.machine import resources

GIB = 1024**3


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return folder


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".")).write_text(f"{text}\n")


def cores() -> float:
    return float(len(os.sched_getaffinity(0)))


def test_without_limits_it_is_the_machine(proc: Path, tmp_path: Path) -> None:
    found = resources(proc, tmp_path / "none")
    assert (found.cpu, found.memory_bytes) == (cores(), 16 * GIB)


def test_the_limits_of_cgroup_v2_hold_also_those_above(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    write(proc / "self", cgroup="0::/kube/pod/box")
    write(groups / "kube" / "pod" / "box", cpu_dot_max="max 100000", memory_dot_max=str(4 * GIB))
    write(groups / "kube" / "pod", cpu_dot_max="50000 100000", memory_dot_max=str(2 * GIB))
    write(groups / "kube", cpu_dot_max="max 100000", memory_dot_max="max")
    found = resources(proc, groups)
    assert (found.cpu, found.memory_bytes) == (0.5, 2 * GIB)


def test_the_limits_of_cgroup_v1_hold_also_where_the_path_is_that_of_another_view(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    write(proc / "self", cgroup="9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc")
    write(groups / "cpu,cpuacct", cpu_dot_cfs_quota_us="25000", cpu_dot_cfs_period_us="100000")
    write(groups / "memory", memory_dot_limit_in_bytes=str(GIB))
    found = resources(proc, groups)
    assert (found.cpu, found.memory_bytes) == (0.25, GIB)


def test_no_limit_of_cgroup_v1_is_no_limit(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    write(proc / "self", cgroup="9:memory:/\n4:cpu,cpuacct:/")
    write(groups / "cpu,cpuacct", cpu_dot_cfs_quota_us="-1", cpu_dot_cfs_period_us="100000")
    write(groups / "memory", memory_dot_limit_in_bytes="9223372036854771712")
    found = resources(proc, groups)
    assert (found.cpu, found.memory_bytes) == (cores(), 16 * GIB)


def test_this_very_machine_has_something() -> None:
    found = resources()
    assert found.cpu is not None
    assert found.memory_bytes is not None
    assert 0 < found.cpu <= cores()
    assert found.memory_bytes > 64 * 1024**2
