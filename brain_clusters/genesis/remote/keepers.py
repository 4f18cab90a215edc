"""The hosts that use one Genesis service: each has a driver of its own, and sees its own agents only."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from brain_clusters.errors import Conflict, NotFound
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.remote.keeper import Bury, Keeper

log = logging.getLogger(__name__)

# A host that has called within so many seconds is there: another of its name has to wait.
_THERE_SECONDS = 30.0

# Makes the driver of a host, by its name and what ``Keepers.open`` was given.
MakeDriver = Callable[[str, Mapping[str, Any]], Driver]


class NameTaken(Conflict):
    """A host of that name, of another system, uses this service now. Try again after ``delay_seconds``."""

    retryable = True
    delay_seconds = 5.0


class Keepers:
    """The keepers by host. Safe for threads."""

    def __init__(self, make: MakeDriver) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._keepers: dict[str, tuple[Mapping[str, Any], Keeper]] = {}

    def open(self, host_id: str, config: Mapping[str, Any], bury: Bury | None = None) -> Keeper:
        """Return the keeper of a host. With another configuration than before, its driver is made anew.

        config: {"agent": what its agents are given, "installation": ...}. Raises NameTaken when two systems call their
        hosts alike.
        """
        with self._lock:
            known = self._keepers.get(host_id)
            if known is not None and not known[1].closed:
                if known[0] == config:
                    return known[1]
                _check_same_system(host_id, known, config)
                known[1].close()
            log.info("a host uses this service", extra={"host_id": host_id})
            keeper = Keeper(host_id, lambda: self._make(host_id, config), bury)
            self._keepers[host_id] = (config, keeper)
            return keeper

    def of(self, host_id: str) -> Keeper:
        """Return the keeper of a host that is open. Raises NotFound."""
        with self._lock:
            known = self._keepers.get(host_id)
        if known is None or known[1].closed:
            raise NotFound(f"the host {host_id} is not open: send PUT /v1/hosts/{host_id} first")
        known[1].called_at = time.monotonic()
        return known[1]

    def close(self) -> None:
        """Close every driver; all agents live on."""
        with self._lock:
            for _, keeper in self._keepers.values():
                keeper.close()
            self._keepers.clear()


def _check_same_system(host_id: str, known: tuple[Mapping[str, Any], Keeper], config: Mapping[str, Any]) -> None:
    there = time.monotonic() - known[1].called_at < _THERE_SECONDS
    if there and _system(known[0]) != _system(config):
        raise NameTaken(
            f"a host {host_id} of another system uses this service now; set BRAIN_HOST_ID, so that the names differ"
        )


def _system(config: Mapping[str, Any]) -> tuple[Any, Any]:
    return config["installation"], config["agent"].get("redis_url")
