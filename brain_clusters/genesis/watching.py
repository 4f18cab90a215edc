"""Follows the stream of events of an engine in a thread of its own, so that a host learns of every end, and at once.

For drivers of engines that are reached by a network: the stream breaks, and what happened meanwhile is found again by
a listing of everything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from brain_clusters.errors import BrainError
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.processes import wake_pipe

log = logging.getLogger(__name__)

_LEAST_PAUSE_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 10.0
# Removed agents whose late events are still known as such.
_REMOVED_KEPT = 10_000


class Source(Protocol):
    """What is followed. Both methods are called from threads of the watch."""

    def follow(self) -> Iterator[Sequence[Sighting]]:
        """Yield all agents of this host first, then those that change, with nothing lost between the two.

        Ends, or raises a BrainError, when the stream does. Never is silent for good: a stream that may have been cut
        without a word is ended after a while.
        """

    def hang_up(self) -> None:
        """Have ``follow`` end soon, wherever it is. Called from another thread."""


class Watch:
    """Tells how the agents of one host change. gone: the reason of those that vanish. Safe for threads.

    What has a handle is on the engine: when a listing that began afterwards lacks it, it has ended. An end is final.
    """

    def __init__(self, source: Source, *, gone: str) -> None:
        self._source = source
        self._gone = gone
        self._lock = threading.Lock()
        self._last: dict[str, Sighting] = {}
        self._untold: dict[str, Sighting] = {}
        self._removed: dict[str, None] = {}
        self._read, self._write = wake_pipe()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop to follow."""
        self._closed.set()
        if self._thread.is_alive():
            self._source.hang_up()
            self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are changes to take."""
        return self._read

    # --- what is seen -------------------------------------------------------------------------------------------

    def tell(self, sightings: Iterable[Sighting]) -> None:
        """Note what was seen of agents, by the stream or otherwise."""
        with self._lock:
            for sighting in sightings:
                self._note(sighting)

    def _note(self, sighting: Sighting) -> None:
        last = self._last.get(sighting.agent_id)
        ended = last is not None and last.phase is Phase.ENDED
        if ended or sighting == last or sighting.agent_id in self._removed:
            return
        self._last[sighting.agent_id] = self._untold[sighting.agent_id] = sighting
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def changes(self) -> Sequence[Sighting]:
        """Take the agents that are not as they were last told, each as it is now."""
        with self._lock:
            with suppress(BlockingIOError):
                while os.read(self._read, 4096):
                    pass
            untold, self._untold = self._untold, {}
        return list(untold.values())

    def last(self, agent_id: str) -> Sighting | None:
        """Return what was last noted of an agent that is not removed."""
        with self._lock:
            return self._last.get(agent_id)

    def ended(self) -> Sequence[Sighting]:
        """Return the ends of agents that are not removed."""
        with self._lock:
            return [last for last in self._last.values() if last.phase is Phase.ENDED]

    def expect(self, agent_ids: Iterable[str]) -> None:
        """Note that agents are to be started, be it once more after they were removed."""
        with self._lock:
            for agent_id in agent_ids:
                self._removed.pop(agent_id, None)

    def forget(self, agent_ids: Iterable[str]) -> None:
        """Note that agents are being removed; what still comes of them is not told."""
        with self._lock:
            for agent_id in agent_ids:
                self._last.pop(agent_id, None)
                self._untold.pop(agent_id, None)
                self._removed[agent_id] = None
            while len(self._removed) > _REMOVED_KEPT:
                del self._removed[next(iter(self._removed))]

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Follow the stream, again and again; after failures in a row with longer and longer pauses."""
        pause = _LEAST_PAUSE_SECONDS
        while not self._closed.is_set():
            try:
                for _ in self._follow():
                    pause = _LEAST_PAUSE_SECONDS
            except BrainError as exc:
                log.warning("the engine's events are lost for now: %s", exc)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
            except Exception:  # a host that does not see any more must not look as if it did
                log.exception("following the engine's events failed")
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
            self._closed.wait(pause)

    def _follow(self) -> Iterator[None]:
        """Note what one stream tells; yield after each note."""
        with self._lock:
            there = {agent_id for agent_id, last in self._last.items() if last.handle and last.phase is not Phase.ENDED}
        news = self._source.follow()
        everything = next(news, None)
        if everything is None:
            return
        missing = there - {sighting.agent_id for sighting in everything}
        self.tell([*everything, *(Sighting(agent_id, Phase.ENDED, reason=self._gone) for agent_id in missing)])
        yield
        for changed in news:
            self.tell(changed)
            yield
