"""The container of an agent: its name, its labels, and all that it is created with."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from docker import APIClient
from docker.types import DeviceRequest, LogConfig, Mount

from brain_clusters import __version__
from brain_clusters.config import resolve
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import parse_gpus, parse_memory
from brain_clusters.errors import PermanentError
from brain_clusters.genesis.driver import Kit

LABEL = "io.brain-clusters."
AGENT_LABEL = f"{LABEL}agent"
_ENTRYPOINT = ["python", "-P", "-m", "brain_clusters.agent.alone"]
_LONGEST_NAME = 100
# More than an agent with many threads needs, and a bound for what goes wrong in one.
_MOST_PROCESSES = 1024
_LOG_BOUNDS = {"max-size": "10m", "max-file": "2"}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose containers they are: one host of one installation."""

    installation: str
    host_id: str

    def labels(self, spec: AgentSpec) -> dict[str, str]:
        """Return the labels of the agent ``spec``."""
        found = {
            "agent": spec.agent_id,
            "cluster": spec.cluster_id,
            "group": spec.group_name,
            "host": self.host_id,
            "installation": self.installation,
        }
        return {f"{LABEL}{key}": value for key, value in found.items()}

    @property
    def filter(self) -> dict[str, Any]:
        """What selects the containers of this host in listings and events."""
        return {"label": [f"{LABEL}host={self.host_id}", f"{LABEL}installation={self.installation}"]}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with ``labels`` is one of this host."""
        return (labels.get(f"{LABEL}host"), labels.get(f"{LABEL}installation")) == (self.host_id, self.installation)

    def name(self, agent_id: str) -> str:
        """Return the name of an agent's container, which no other agent of any installation has."""
        digest = sha256(f"{self.installation} {agent_id}".encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", agent_id)[:_LONGEST_NAME]
        return f"brain-{readable}-{digest}"


class Recipe:
    """Says how containers are made. memory_bytes: what the engine's machine has."""

    def __init__(self, kit: Kit, owner: Owner, api: APIClient, *, memory_bytes: int) -> None:
        self._kit = kit
        self._owner = owner
        self._api = api
        self._memory_bytes = memory_bytes

    def image(self, spec: AgentSpec) -> str:
        """Return the name of the agent's image."""
        return spec.engine.image or self._kit.settings.agent_image or f"brain-clusters:{__version__}"

    def arguments(self, spec: AgentSpec) -> dict[str, Any]:
        """Return what ``APIClient.create_container`` is called with. Raises PermanentError for what cannot be run."""
        asked = spec.engine.docker
        return {
            "image": self.image(spec),
            "name": self._owner.name(spec.agent_id),
            "entrypoint": _ENTRYPOINT,
            "command": [],
            "environment": self._environment(spec),
            "labels": {**asked.get("labels", {}), **self._owner.labels(spec)},
            "user": asked.get("user"),
            "healthcheck": {"test": ["NONE"]},  # that of the image looks after another process of ours
            "host_config": self._api.create_host_config(**self._limits(spec), **self._access(spec)),
        }

    def _limits(self, spec: AgentSpec) -> dict[str, Any]:
        asked, needs = spec.engine.docker, spec.engine.resources
        if needs.memory_bytes is not None and needs.memory_bytes > self._memory_bytes:
            raise PermanentError(
                f"it asks for {_size(needs.memory_bytes)} of memory, and the machine of the engine has "
                f"{_size(self._memory_bytes)}"
            )
        return {
            "nano_cpus": None if needs.cpu is None else round(needs.cpu * 1e9),
            "mem_limit": needs.memory_bytes,
            "memswap_limit": needs.memory_bytes,
            "pids_limit": _MOST_PROCESSES,
            "log_config": LogConfig(type=LogConfig.types.JSON, config=_LOG_BOUNDS),
            "shm_size": parse_memory(asked["shm_size"]) if "shm_size" in asked else None,
            "device_requests": _gpus(asked) if "gpus" in asked else None,
        }

    def _access(self, spec: AgentSpec) -> dict[str, Any]:
        asked = spec.engine.docker
        network = self.network(spec)
        self._check_redis(network)
        return {
            "init": True,  # reaps what jobs leave behind
            "network_mode": network,
            "extra_hosts": asked.get("extra_hosts"),
            "cap_drop": ["ALL"],
            "cap_add": asked.get("cap_add"),
            "security_opt": ["no-new-privileges:true"],
            "read_only": asked.get("read_only", False),
            "tmpfs": {"/tmp": ""} if asked.get("read_only") else None,  # noqa: S108 - in the container
            "mounts": [self._mount(volume) for volume in asked.get("volumes", [])],
        }

    def _mount(self, volume: str) -> Mount:
        """Return SOURCE:TARGET or SOURCE:TARGET:ro as a mount. One of a missing folder fails; -v would make it."""
        source, target, *mode = volume.split(":")
        allowed = self._kit.settings.docker_volumes
        if source.startswith("/"):
            source = posixpath.normpath(source)
            is_allowed = any(PurePosixPath(source).is_relative_to(one) for one in allowed if one.startswith("/"))
        else:
            is_allowed = source in allowed
        if not is_allowed:
            raise PermanentError(
                f"its blueprint mounts {source}, which BRAIN_DOCKER_VOLUMES of its host does not allow "
                f"({', '.join(allowed) or 'it allows nothing'}); add it there, or a folder above it"
            )
        return Mount(target, source, type="bind" if source.startswith("/") else "volume", read_only=mode == ["ro"])

    def network(self, spec: AgentSpec) -> str | None:
        """Return the network of the agent; None is the engine's default."""
        stated: str | None = spec.engine.docker.get("network", self._kit.settings.docker_network)
        return stated

    def _check_redis(self, network: str | None) -> None:
        if network != "host" and _is_loopback(urlsplit(self._redis_url).hostname or ""):
            raise PermanentError(
                "Redis is on the loopback address of this machine, where its container does not reach it; set "
                "BRAIN_AGENT_REDIS_URL to an address that it reaches, or BRAIN_DOCKER_NETWORK=host"
            )

    @property
    def _redis_url(self) -> str:
        return self._kit.settings.agent_redis_url or str(self._kit.agent["redis_url"])

    def _environment(self, spec: AgentSpec) -> dict[str, str]:
        """Return the variables of the container: what the group asks for, and what the agent is given by us."""
        found = {name: self._value(name, text) for name, text in spec.engine.environment.items()}
        # What its variables refer to is on this side, and who reads BRAIN_AGENT may not learn what Redis is opened by.
        told = replace(spec, engine=replace(spec.engine, environment={}))
        config = {**self._kit.agent, "redis_url": ""}
        return {
            **found,
            "BRAIN_AGENT": json.dumps({"spec": told.as_dict(), "config": config}),
            "BRAIN_AGENT_REDIS_URL": self._redis_url,
        }

    def _value(self, name: str, text: str) -> str:
        if text.startswith("secret:"):
            raise PermanentError(
                f"environment: {name}: {text} is for Kubernetes; use env:NAME or file:PATH, as its host finds it"
            )
        try:
            value = resolve(text, self._kit.environ)
        except ValueError as exc:
            raise PermanentError(f"environment: {name}: {exc}") from None
        if "\0" in value:
            raise PermanentError(f"environment: {name}: what {text.partition(':')[0]}: gives holds a NUL character")
        return value


def _gpus(asked: Mapping[str, Any]) -> list[DeviceRequest]:
    return [DeviceRequest(count=parse_gpus(asked["gpus"]), capabilities=[["gpu"]])]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _size(number: int) -> str:
    return f"{round(number / 1024**3, 1):.7g} GiB" if number >= 1024**3 else f"{number / 1024**2:.4g} MiB"


def out_of_memory(limit: int) -> str:
    """Return the reason of a container that was killed for its memory. limit: bytes, 0 for none."""
    return f"out of memory: it may use {_size(limit)}" if limit else "out of memory: its machine had none left"
