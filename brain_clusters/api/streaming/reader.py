"""The thread that reads events for all listeners of a process, and asks whether they still may listen."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from brain_clusters.api.streaming.frames import chunk_of
from brain_clusters.api.streaming.listener import Connection, Listener
from brain_clusters.api.streaming.ring import Ring
from brain_clusters.api.streaming.wake import Wake
from brain_clusters.db.listen import EVENTS_CHANNEL
from brain_clusters.db.listen import Listener as Ear
from brain_clusters.errors import BrainError
from brain_clusters.services import access, feed
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

_PER_READ = 500
# Without a notification: it may be lost with its connection, or have come before older transactions ended.
_POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.01
_CHECK_SECONDS = 15.0
_IDLE_SECONDS = 30.0


class Reader(threading.Thread):
    """listeners: tells those of now; changed: is called when there is something for them."""

    def __init__(
        self, control: Control, ring: Ring, listeners: Callable[[], Collection[Listener]], changed: Callable[[], None]
    ) -> None:
        super().__init__(name="events-reader", daemon=True)
        self._control, self._ring, self._listeners, self._tell = control, ring, listeners, changed
        self._wake, self._ear = Wake(), Ear(control.database.engine, EVENTS_CHANNEL)
        self._behind: deque[Connection] = deque()
        self._closing = False
        self._pause, self._busy_at, self._checked_at = 0.0, time.monotonic(), time.monotonic()

    def fetch(self, connection: Connection) -> None:
        """Read the next events of a connection, which are not in the ring. Any thread."""
        self._behind.append(connection)
        self._wake.set()

    def wake(self) -> None:
        """Begin to read: there is a listener. Any thread."""
        self._wake.set()

    def close(self) -> None:
        """End. Any thread."""
        self._closing = True
        self._wake.set()

    def run(self) -> None:
        """Read until it is closed, while anybody listens."""
        while not self._closing:
            try:
                self._turn()
            except BrainError as exc:
                log.warning("events cannot be read now: %s", exc)
                self._pause = _POLL_SECONDS
            except Exception:
                log.exception("the reader of events stumbled")
                self._pause = _POLL_SECONDS
            self._wait()
        self._ear.close()
        self._wake.close()

    def _turn(self) -> None:
        if self._listeners():
            self._busy_at = time.monotonic()
        elif time.monotonic() - self._busy_at > _IDLE_SECONDS:
            self._ear.close()
            self._ring.clear()
            return
        self._ear.fileno()  # listens first, so that nothing comes between the reading and the waiting
        if self._ring.head is None:
            self._begin()
        unsettled = self._read()
        self._catch_up()
        self._check()
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _POLL_SECONDS) if unsettled else 0.0

    def _begin(self) -> None:
        with self._control.database.transaction() as session:
            feed.rebase(session)
        with self._control.database.transaction() as session:
            self._ring.begin(feed.before_last(session, _PER_READ))

    def _read(self) -> bool:
        """Read all there is; return whether there is more, which waits for older transactions."""
        while not self._closing:
            head = self._ring.head
            assert head is not None  # noqa: S101 - it has begun
            with self._control.database.transaction() as session:
                batch = feed.after(session, head, _PER_READ)
            self._ring.extend(chunk_of(batch))
            if batch.entries:
                self._tell()
            if not batch.more:
                return batch.unsettled
        return False

    def _catch_up(self) -> None:
        while self._behind and not self._closing:
            connection = self._behind[0]
            with self._control.database.transaction() as session:
                connection.page = chunk_of(feed.after(session, connection.listener.position, _PER_READ))
            self._behind.popleft()
            self._tell()

    def _check(self) -> None:
        """End those whose key was revoked or has run out."""
        if time.monotonic() - self._checked_at < _CHECK_SECONDS:
            return
        listeners = list(self._listeners())
        with self._control.database.transaction() as session:
            good = access.still_good(session, [one.caller for one in listeners])
        self._checked_at = time.monotonic()
        for listener in listeners:
            listener.ended = listener.ended or listener.caller not in good
        self._tell()

    def _wait(self) -> None:
        """Wait for a notification, for what others want, or until it is time to look."""
        if self._ring.head is None and not self._listeners():
            seconds: float | None = None
        else:
            seconds = self._pause or _POLL_SECONDS
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        ear = -1 if self._ring.head is None else self._ear.fileno()
        if ear >= 0:
            poller.register(ear, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(None if seconds is None else seconds * 1000)}
        self._wake.clear()
        if ear in ready:
            try:
                self._ear.clear()
            except BrainError as exc:
                log.warning("nobody tells of events now, they are polled for: %s", exc)
