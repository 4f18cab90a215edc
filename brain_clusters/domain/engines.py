"""What an agent asks of the engine that runs it: the parts of a blueprint's group that only drivers read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from brain_clusters.domain.sharing import parse_bytes

PROCESS = "process"


def known(kind: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the dataclass ``kind`` that ``found`` has: a newer control plane tells agents more."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in found.items() if name in names}


# T0 before anything was measured: what a fork, a container and a pod with its image in place were seen to take; of the
# fork several times that, which still is a third of a cold `celery worker`.
_START_SECONDS = {PROCESS: 0.3, "docker": 1.0}
_OTHER_START_SECONDS = 3.0
_CPU = re.compile(r"([0-9]{1,7})m")
LARGEST_CPU = 1024.0
LARGEST_MEMORY_BYTES = 64 * 1024**4


@dataclass(frozen=True, slots=True)
class Resources:
    """What one agent needs: cpu in cores, memory in bytes; None is not stated, and not limited."""

    cpu: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """How an agent is run. environment: its variables, each a text, or where the text is (env:NAME, file:PATH, and
    secret:NAME/KEY on Kubernetes). docker, pod: the checked sections of that name.
    """

    driver: str = PROCESS
    image: str | None = None
    resources: Resources = field(default_factory=Resources)
    environment: Mapping[str, str] = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Engine:
        """Return what ``dataclasses.asdict`` and JSON made of one."""
        resources = Resources(**known(Resources, found.get("resources", {})))
        return cls(**known(cls, {**found, "resources": resources}))


def parse_cpu(value: object) -> float:
    """Return ``value`` in cores: 0.5, "500m" or "2". Raise ValueError with a sentence."""
    cores: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        cores = float(value) if math.isfinite(value) else None
    elif isinstance(value, str):
        found = _CPU.fullmatch(value.strip())
        cores = int(found[1]) / 1000 if found else _number(value)
    if cores is None:
        raise ValueError('must be a number of cores such as 0.5 or 2, or thousandths of one such as "500m"')
    if not 0.001 <= cores <= LARGEST_CPU:
        raise ValueError(f"must be between 0.001 and {LARGEST_CPU:g} cores")
    return cores


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*[0-9]{1,4}(\.[0-9]{1,6})?\s*", text) else None


def parse_memory(value: object) -> int:
    """Return ``value`` in bytes: 268435456, "256Mi", "256MiB" or "1GB". Raise ValueError with a sentence."""
    size = parse_bytes(value)
    if size is None:
        raise ValueError("must be a size such as 256Mi, 256MiB or 1GB (a bare number is bytes)")
    if not 1024**2 <= size <= LARGEST_MEMORY_BYTES:
        raise ValueError("must be a size between 1MiB and 64TiB")
    return int(size)


def parse_gpus(value: object) -> int:
    """Return ``value`` as a number of GPUs, -1 for "all". Raise ValueError with a sentence."""
    if value == "all":
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError("must be a number of GPUs from 1 to 64, or `all`")
    return value


def resources(stated: Mapping[str, Any]) -> Resources:
    """Return what a group's ``resources`` says, which was checked."""
    cpu, memory = stated.get("cpu"), stated.get("memory")
    return Resources(None if cpu is None else parse_cpu(cpu), None if memory is None else parse_memory(memory))


def default_start_seconds(driver: str) -> float:
    """Return T0 of an engine before it was measured."""
    return _START_SECONDS.get(driver, _OTHER_START_SECONDS)
