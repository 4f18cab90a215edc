"""What has to be done on an engine, one thing per agent at a time, in a few threads, until it succeeds."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)

_LEAST_PAUSE_SECONDS = 0.25
_MOST_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class _Errand:
    """act: does it, and is called again after TemporaryError. waits: is told why it has to be. due: monotonic."""

    agent_id: str
    act: Callable[[], None]
    waits: Callable[[TemporaryError], None]
    attempts: int = 0
    due: float = 0.0


class Errands:
    """Runs errands. A new one for an agent takes the place of that which it has, after the attempt that runs."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="errands")
        self._lock = threading.Lock()
        self._wanted: dict[str, _Errand] = {}
        self._running: set[str] = set()
        self._closed = False

    def put(
        self, agent_id: str, act: Callable[[], None], waits: Callable[[TemporaryError], None] = lambda _: None
    ) -> None:
        """Have ``act`` done for an agent, now and until it succeeds."""
        with self._lock:
            self._wanted[agent_id] = _Errand(agent_id, act, waits)
            self._submit_due()

    def pending(self) -> set[str]:
        """Return the agents for whom something is to be done."""
        with self._lock:
            return set(self._wanted)

    def go_on(self) -> None:
        """Try again what is due. Called often."""
        with self._lock:
            self._submit_due()

    def close(self) -> None:
        """Do what can be done at once, and end."""
        with self._lock:
            self._closed = True
        self._pool.shutdown()

    def _submit_due(self) -> None:
        now = time.monotonic()
        for errand in self._wanted.values():
            if errand.due <= now and errand.agent_id not in self._running and not self._closed:
                self._running.add(errand.agent_id)
                self._pool.submit(self._run, errand)

    def _run(self, errand: _Errand) -> None:
        done = self._attempt(errand)
        with self._lock:
            self._running.discard(errand.agent_id)
            if done and self._wanted.get(errand.agent_id) is errand:
                del self._wanted[errand.agent_id]
            self._submit_due()

    def _attempt(self, errand: _Errand) -> bool:
        try:
            errand.act()
        except TemporaryError as exc:
            self._put_off(errand, exc.delay_seconds)
            # Another errand has nothing to do with what this one waits for.
            if self._wanted.get(errand.agent_id) is errand:
                errand.waits(exc)
            return False
        except Exception:  # a fault of ours; an agent must not be forgotten for it
            log.exception("what is to be done failed, and is tried again", extra={"agent_id": errand.agent_id})
            self._put_off(errand, _MOST_PAUSE_SECONDS)
            return False
        return True

    def _put_off(self, errand: _Errand, at_least: float) -> None:
        """Have it tried later, and each time later; not all of many at one moment."""
        pause = min(_LEAST_PAUSE_SECONDS * 2**errand.attempts, _MOST_PAUSE_SECONDS)
        errand.attempts += 1
        errand.due = time.monotonic() + max(pause, at_least) * random.uniform(1.0, 1.25)  # noqa: S311 - no secret
