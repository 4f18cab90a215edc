"""Waking a thread that waits for descriptors."""

from __future__ import annotations

import socket
from contextlib import suppress


class Wake:
    """Readable once it is set. ``set`` may be called by any thread, also after it was closed."""

    def __init__(self) -> None:
        # Sockets and no pipe: a closed one knows it, while a bare descriptor may be another file's by then.
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._here.fileno()

    def set(self) -> None:
        """Wake the thread that waits, or that waits next."""
        with suppress(OSError):  # full: it is set already
            self._there.send(b"!")

    def clear(self) -> None:
        """Take note that it was set."""
        with suppress(OSError):
            while self._here.recv(4096):
                pass

    def close(self) -> None:
        """Give up the descriptors."""
        self._here.close()
        self._there.close()
