"""A forwarder of TCP connections: it lets a server on loopback be reached at another address of this machine."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Forwarder:
    """Listens on ``address`` and carries each connection to the server of ``url``. url: the same at this address.

    What comes from a side that is cut off never comes, and what is sent to it waits, as on any network.
    """

    def __init__(self, address: str, url: str) -> None:
        found = urlsplit(url)
        self._server = (found.hostname or "", found.port or 0)
        self._listener = socket.create_server((address, 0))
        netloc = f"{found.netloc.rpartition('@')[0]}@{address}:{self._listener.getsockname()[1]}"
        self.url = found._replace(netloc=netloc).geturl()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop_read, self._stop_write = socket.socketpair()
        self._selector.register(self._stop_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_write.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _carry(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stop_read:
                    return
                if key.fileobj is self._listener:
                    self._connect()
                elif key.fileobj in {found.fileobj for found in self._selector.get_map().values()}:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]

    def _connect(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(self._server)
        for one, other in ((near, far), (far, near)):
            # What a side that is cut off does not take must not hold up the others: it is dropped with its connection.
            one.settimeout(0.5)
            self._selector.register(one, selectors.EVENT_READ, other)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        try:
            data = one.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for end in (one, other):
            with suppress(KeyError):
                self._selector.unregister(end)
            end.close()
