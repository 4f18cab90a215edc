"""Removes the containers of ended agents, again while the engine does not answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from brain_clusters.errors import BrainError, NotFound

log = logging.getLogger(__name__)


class Cleaner:
    """Keeps what is still to be removed. remove: removes an agent's container; raises a BrainError."""

    def __init__(self, pool: Executor, remove: Callable[[str], None]) -> None:
        self._pool = pool
        self._remove = remove
        self._lock = threading.Lock()
        self._waiting: set[str] = set()

    def add(self, agent_ids: Iterable[str]) -> None:
        """Have agents' containers removed."""
        for agent_id in agent_ids:
            with self._lock:
                known = agent_id in self._waiting
                self._waiting.add(agent_id)
            if not known:
                self._pool.submit(self._try, agent_id)

    def holds(self, agent_id: str) -> bool:
        """Whether a container is still to be removed."""
        with self._lock:
            return agent_id in self._waiting

    def retry(self) -> None:
        """Try once more what could not be removed."""
        with self._lock:
            again, self._waiting = self._waiting, set()
        self.add(again)

    def _try(self, agent_id: str) -> None:
        try:
            self._remove(agent_id)
        except NotFound:
            pass
        except BrainError as exc:
            log.warning("agent=%s its container is removed later: %s", agent_id, exc)
            return
        with self._lock:
            self._waiting.discard(agent_id)
