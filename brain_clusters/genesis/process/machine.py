"""What this machine, or the container that this process is in, has for agents: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from brain_clusters.domain.engines import Resources

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# The kernel's word for no limit under cgroup v1 is the largest number of pages there is; none has so much.
_UNLIMITED_BYTES = 1 << 60


def resources(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Resources:
    """Return the cores and the bytes that this process may use: the machine's, or less by its cgroups (v2 or v1).

    Sources: cgroup-v2.rst (cpu.max, memory.max) and sched-bwc.rst, memory.rst of cgroup-v1 in the kernel's manual.
    """
    places = list(_places(proc / "self" / "cgroup", cgroups))
    quotas = [quota for place in places if (quota := _quota(place)) is not None]
    limits = [limit for place in places if (limit := _memory_limit(place)) is not None]
    memory = [size for size in [_machine_bytes(proc), *limits] if size is not None]
    return Resources(cpu=round(min([_affinity(), *quotas]), 3), memory_bytes=min(memory, default=None))


def _places(told: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroups and of those above them, whose limits hold as well.

    In a container the path that is told may be that of the machine, which is not there; the top one is.
    """
    try:
        lines = told.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = cgroups / controllers if controllers else cgroups
        own = PurePosixPath(path.lstrip("/"))
        for below in (own, *own.parents):
            yield top / below


def _quota(place: Path) -> float | None:
    """Return the cores that a cgroup may use; None for no limit."""
    found = _words(place / "cpu.max") or [*_words(place / "cpu.cfs_quota_us"), *_words(place / "cpu.cfs_period_us")]
    if len(found) != 2 or not found[0].isdigit() or int(found[1]) == 0:  # "max", or -1
        return None
    return int(found[0]) / int(found[1])


def _memory_limit(place: Path) -> int | None:
    found = _words(place / "memory.max") or _words(place / "memory.limit_in_bytes")
    limit = int(found[0]) if found and found[0].isdigit() else _UNLIMITED_BYTES
    return limit if limit < _UNLIMITED_BYTES else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _affinity() -> float:
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _machine_bytes(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)
