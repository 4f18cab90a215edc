"""The thread that holds all connections of listeners and sends to them."""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from brain_clusters.api.streaming.listener import Connection, Listener
from brain_clusters.api.streaming.ring import Ring
from brain_clusters.api.streaming.wake import Wake

log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
# A peer that takes nothing for so long is hung up on; it can come back to where it was.
_STALLED_SECONDS = 30.0
_TEND_SECONDS = 1.0
# After a round to all, a pause of so many times its length: events come in bunches then, and requests get their time.
_PAUSES_PER_ROUND = 9
_LONGEST_PAUSE_SECONDS = 0.25


class Sender(threading.Thread):
    """fetch: is told of a connection whose next events are not in the ring; left: of a listener that is gone."""

    def __init__(self, ring: Ring, fetch: Callable[[Connection], None], left: Callable[[Listener], None]) -> None:
        super().__init__(name="events-sender", daemon=True)
        self._ring, self._fetch, self._left = ring, fetch, left
        self._wake, self._selector = Wake(), selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._came: deque[Connection] = deque()
        self._connections: set[Connection] = set()
        self._changed, self._closing = False, False
        self._next_round = self._next_tending = 0.0

    def add(self, connection: Connection) -> None:
        """Take a connection. Any thread."""
        self._came.append(connection)
        self.changed()

    def changed(self) -> None:
        """Look what there is to send. Any thread."""
        self._changed = True
        self._wake.set()

    def close(self) -> None:
        """Hang up on all, and end. Any thread."""
        self._closing = True
        self._wake.set()

    def run(self) -> None:
        """Send until it is closed."""
        while not self._closing:
            try:
                self._turn()
            except Exception:
                log.exception("the sender of events stumbled")
        for connection in list(self._connections | set(self._came)):
            self._drop(connection)
        self._selector.close()
        self._wake.close()

    def _turn(self) -> None:
        for key, mask in self._selector.select(self._patience()):
            if key.data is None:
                self._wake.clear()
            else:
                self._serve(key.data, mask)
        now = time.monotonic()
        if self._changed and now >= self._next_round:
            self._changed = False
            self._round()
            spent = time.monotonic() - now
            self._next_round = now + spent + min(spent * _PAUSES_PER_ROUND, _LONGEST_PAUSE_SECONDS)
        if now >= self._next_tending:
            self._next_tending = now + _TEND_SECONDS
            self._tend(now)

    def _patience(self) -> float | None:
        if not self._connections and not self._came:
            return None
        until = self._next_round if self._changed else self._next_tending
        return max(0.0, until - time.monotonic())

    def _round(self) -> None:
        while self._came:
            connection = self._came.popleft()
            self._connections.add(connection)
            self._selector.register(connection.peer, selectors.EVENT_READ, connection)
        for connection in list(self._connections):
            self._serve(connection, selectors.EVENT_WRITE)

    def _serve(self, connection: Connection, mask: int) -> None:
        """Read from a connection, or write to it; hang up when it is gone, or too far behind."""
        try:
            if mask & selectors.EVENT_READ:
                connection.receive()
            if mask & selectors.EVENT_WRITE:
                self._advance(connection)
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.is_blocked else 0)
            if self._selector.get_key(connection.peer).events != wanted:
                self._selector.modify(connection.peer, wanted, connection)
        except (OSError, KeyError):
            self._drop(connection)

    def _advance(self, connection: Connection) -> None:
        connection.send()
        if connection.is_blocked:
            if not connection.behind and self._ring.since(connection.listener.position) is None:
                raise TimeoutError("it does not read, and the events after what it was sent are not in memory any more")
            return
        if connection.fetching and connection.page is None:
            return
        connection.fetching = False
        while not connection.is_blocked:
            if not connection.fill(self._ring):
                connection.fetching = connection.behind = True
                self._fetch(connection)
                return
            if not connection.is_blocked:
                return  # there is nothing to send
            connection.send()

    def _tend(self, now: float) -> None:
        """Give signs of life, and hang up on those that give none, or may not listen any more."""
        for connection in list(self._connections):
            stalled = connection.is_blocked and now - connection.moved_at > _STALLED_SECONDS
            if stalled or connection.listener.ended:
                self._drop(connection)
            elif now - connection.told_at >= BEAT_SECONDS and not connection.is_blocked:
                connection.beat()
                self._serve(connection, selectors.EVENT_WRITE)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.peer)
        with suppress(OSError):
            connection.peer.close()
        self._left(connection.listener)
