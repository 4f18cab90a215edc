"""Removes the containers of ended agents, again while the engine does not answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from brain_clusters.errors import BrainError

log = logging.getLogger(__name__)


class Cleaner:
    """Keeps what is still to be removed. remove: removes an agent's container; raises a BrainError."""

    def __init__(self, pool: Executor, remove: Callable[[str], None]) -> None:
        self._pool = pool
        self._remove = remove
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._active: set[str] = set()

    def add(self, agent_ids: Iterable[str]) -> None:
        """Have agents' containers removed."""
        with self._lock:
            self._waiting.update(agent_ids)
        self.retry()

    def holds(self, agent_id: str) -> bool:
        """Whether a container is still to be removed."""
        with self._lock:
            return agent_id in self._waiting

    def retry(self) -> None:
        """Go on with what is not removed."""
        with self._lock:
            due = self._waiting - self._active
            self._active |= due
        for agent_id in due:
            self._pool.submit(self._try, agent_id)

    def _try(self, agent_id: str) -> None:
        removed = False
        try:
            self._remove(agent_id)
            removed = True
        except BrainError as exc:
            log.warning("an agent's container is removed later: %s", exc, extra={"agent_id": agent_id})
        finally:
            with self._lock:
                self._active.discard(agent_id)
                if removed:
                    self._waiting.discard(agent_id)
