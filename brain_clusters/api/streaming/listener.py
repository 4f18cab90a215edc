"""One that listens: where it is, and what of all events it gets."""

from __future__ import annotations

import socket
import time

from brain_clusters.api.streaming import frames
from brain_clusters.api.streaming.frames import Choice, Chunk, Frame
from brain_clusters.api.streaming.ring import Ring
from brain_clusters.domain.access import Identity
from brain_clusters.domain.positions import Position

# What the kernel holds for a peer that does not read.
_SEND_BUFFER_BYTES = 64 * 1024


class Listener:
    """Its place moves on with what it takes.

    connected: the hub has its connection. ended: it is to be hung up on, as its key was revoked.
    """

    def __init__(self, caller: Identity, position: Position, wants: Choice) -> None:
        self.caller = caller
        self.position = position
        self.ended = self.connected = False
        self._wants = wants

    def take(self, chunk: Chunk) -> bytes:
        """Move on to the chunk's end; return what of it is for this listener."""
        self.position = max(self.position, chunk.upto)
        return b"".join(frame.data for frame in chunk.frames if self._sees(frame) and self._wants(frame))

    def _sees(self, frame: Frame) -> bool:
        # As db.scope has it, for rows that were read for all.
        return self.caller.sees_all or not set(self.caller.tags).isdisjoint(frame.tags or ())


class Connection:
    """A listener's socket, which never blocks. All but ``page`` belongs to the thread of the sender.

    behind: it is given events that are not in the ring any more; fetching: the reader is at it; page: what that found.
    """

    def __init__(self, listener: Listener, peer: socket.socket, first: bytes) -> None:
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.listener, self.peer = listener, peer
        self.page: Chunk | None = None
        self.fetching = self.behind = False
        self.moved_at = self.told_at = time.monotonic()
        self._unsent = memoryview(first)

    @property
    def is_blocked(self) -> bool:
        """Whether the peer has yet to read what it was sent."""
        return bool(self._unsent)

    def fill(self, ring: Ring) -> bool:
        """Take the next events, when all before is sent; return False when they are not in the ring."""
        while not self._unsent:
            page, self.page = self.page, None
            chunk = page or ring.since(self.listener.position)
            if chunk is None:
                return False
            self._unsent = memoryview(self.listener.take(chunk))
            self.behind = page is not None
            if page is None and not chunk.more:
                break
        return True

    def beat(self) -> None:
        """Have a sign of life sent, when all before is sent."""
        if not self._unsent:
            self._unsent = memoryview(frames.beat(self.listener.position))

    def send(self) -> None:
        """Send what can be sent now. Raises OSError when the peer is gone."""
        while self._unsent:
            try:
                sent = self.peer.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return
            self._unsent = self._unsent[sent:]
            self.moved_at = self.told_at = time.monotonic()

    def receive(self) -> None:
        """Read what the peer says, which is nothing of worth. Raises OSError when it is gone."""
        try:
            said = self.peer.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        if not said:
            raise ConnectionResetError("the peer has hung up")
