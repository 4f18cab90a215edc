"""All listeners of a process, and the two threads that serve them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Iterator

from brain_clusters.api.streaming import frames
from brain_clusters.api.streaming.frames import Choice, Chunk
from brain_clusters.api.streaming.listener import Connection, Listener
from brain_clusters.api.streaming.reader import Reader
from brain_clusters.api.streaming.ring import Ring
from brain_clusters.api.streaming.sender import BEAT_SECONDS, Sender
from brain_clusters.domain.access import Identity
from brain_clusters.domain.positions import Position
from brain_clusters.errors import TemporaryError
from brain_clusters.services import feed
from brain_clusters.services.control import Control

_RING_EVENTS = 2048
_FULL_SECONDS = 10.0
_CLOSE_SECONDS = 2.0


class Hub:
    """Starts its threads with the first listener. ``close`` ends them."""

    def __init__(self, control: Control, most: int) -> None:
        self._control, self._most = control, most
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._ring = Ring(_RING_EVENTS)
        self._threads: tuple[Reader, Sender] | None = None
        self._closed = False

    def open(self, caller: Identity, position: Position, wants: Choice) -> Listener:
        """Return a new listener, which is ``forget``'s to end. Raises TemporaryError when there are too many."""
        listener = Listener(caller, position, wants)
        with self._lock:
            if self._closed or len(self._listeners) >= self._most:
                told = f"{len(self._listeners)} listen to events, which is as many as may (BRAIN_API_LISTENERS)"
                raise TemporaryError(told, delay_seconds=_FULL_SECONDS)
            self._listeners.add(listener)
            reader, _ = self._threads = self._threads or self._started()
        reader.wake()
        return listener

    def _started(self) -> tuple[Reader, Sender]:
        def fetch(connection: Connection) -> None:
            reader.fetch(connection)

        sender = Sender(self._ring, fetch, self.forget)
        reader = Reader(self._control, self._ring, self._everybody, sender.changed)
        sender.start()
        reader.start()
        return reader, sender

    def _everybody(self) -> Collection[Listener]:
        with self._lock:
            return tuple(self._listeners)

    @property
    def closed(self) -> bool:
        """Whether this process is about to end, so that nobody is to be held up any more."""
        return self._closed

    def forget(self, listener: Listener) -> None:
        """Give a listener's place free. Repeated, it changes nothing."""
        with self._lock:
            self._listeners.discard(listener)

    def connect(self, listener: Listener, peer: socket.socket, first: bytes) -> None:
        """Send ``first`` to a peer and all that the listener gets, until it hangs up; both are the hub's from now."""
        with self._lock:
            threads = self._threads
        listener.connected = True
        if threads is None:
            peer.close()
            return
        threads[1].add(Connection(listener, peer, first))

    def follow(self, listener: Listener) -> Iterator[bytes]:
        """Yield all that a listener gets, in the thread of the caller: for servers whose sockets cannot be taken."""
        told_at = time.monotonic()
        while not listener.ended and not self._closed:
            chunk = self._ring.since(listener.position) or self._fetched(listener.position)
            told = listener.take(chunk)
            if not told and time.monotonic() - told_at >= BEAT_SECONDS:
                told = frames.beat(listener.position)
            if told:
                yield told
                told_at = time.monotonic()
            elif not chunk.more:
                self._ring.wait_beyond(listener.position, BEAT_SECONDS)

    def _fetched(self, position: Position) -> Chunk:
        with self._control.database.transaction() as session:
            return frames.chunk_of(feed.after(session, position, _RING_EVENTS))

    def close(self) -> None:
        """Hang up on all listeners and end the threads; none begins any more."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, None
        for thread in threads or ():
            thread.close()
        for thread in threads or ():
            thread.join(_CLOSE_SECONDS)
