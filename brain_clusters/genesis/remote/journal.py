"""What a Genesis service knows of the agents of one host, in the order in which it came to know it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brain_clusters.errors import NotFound
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.remote.forms import as_json


class Journal:
    """The last sighting of each agent, also of one that ended, until it is forgotten. Safe for threads.

    A cursor says up to where somebody has read: "EPOCH.VERSION". Each journal has an epoch of its own, so that a cursor
    of before a restart is known as such.
    """

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(6)
        self._version = 0
        self._last: dict[str, tuple[int, Sighting]] = {}
        self._changed = threading.Condition()

    def note(self, sightings: Iterable[Sighting]) -> None:
        """Write down what is not as it was."""
        with self._changed:
            for sighting in sightings:
                last = self._last.get(sighting.agent_id)
                if last is None or last[1] != sighting:
                    self._version += 1
                    self._last[sighting.agent_id] = (self._version, sighting)
            self._changed.notify_all()

    def forget(self, agent_ids: Iterable[str]) -> None:
        """Strike out agents that were removed."""
        with self._changed:
            for agent_id in agent_ids:
                self._last.pop(agent_id, None)

    def ended(self) -> list[str]:
        """Return the ids of those that ended and are not forgotten."""
        with self._changed:
            return [agent_id for agent_id, (_, last) in self._last.items() if last.phase is Phase.ENDED]

    def page(self, agent_ids: Sequence[str] | None = None) -> dict[str, Any]:
        """Return what is known of ``agent_ids``, or of all, and the cursor."""
        with self._changed:
            wanted = self._last if agent_ids is None else [one for one in agent_ids if one in self._last]
            return self._page({agent_id: self._last[agent_id] for agent_id in wanted})

    def since(self, cursor: str, wait_seconds: float) -> dict[str, Any]:
        """Return what changed since ``cursor``, waiting for it. Raises NotFound for a cursor of another epoch."""
        epoch, _, text = cursor.partition(".")
        if epoch != self._epoch or not text.isascii() or not text.isdigit():
            raise NotFound("this cursor is none of the service's that runs now: list all agents, and go on from there")
        seen, deadline = int(text), time.monotonic() + wait_seconds
        with self._changed:
            while self._version <= seen and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._page({agent_id: last for agent_id, last in self._last.items() if last[0] > seen})

    def _page(self, found: Mapping[str, tuple[int, Sighting]]) -> dict[str, Any]:
        told = [as_json(sighting, version) for version, sighting in found.values()]
        return {"agents": told, "cursor": f"{self._epoch}.{self._version}"}
