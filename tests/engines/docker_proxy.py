"""Stands between a driver and its Docker engine, and makes the errors that networks and busy engines make."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Rule:
    """What happens to the next ``times`` requests that match: answered with ``status``, or the reply is lost (0)."""

    request: re.Pattern[str]
    status: int
    message: str
    times: int


class Proxy:
    """Listens on a loopback port for the engine at ``address``. Each connection carries one request."""

    def __init__(self, address: str) -> None:
        found = urlsplit(address)
        self._upstream = found.path if found.scheme == "unix" else (found.hostname, found.port or 2375)
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._open: set[socket.socket] = set()
        self._port = 0
        self._muted = False
        self.requests: list[str] = []
        self.up()

    @property
    def address(self) -> str:
        """What DOCKER_HOST is set to."""
        return f"tcp://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, on the port of before."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Listen no more and cut what is open, as the end of an engine does."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut what is open."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def answer(self, request: str, status: int, message: str = "made by a test", times: int = 1) -> None:
        """Answer the next requests that match ``METHOD /path`` with an error."""
        with self._lock:
            self._rules.append(Rule(re.compile(request), status, message, times))

    def lose_reply(self, request: str, times: int = 1) -> None:
        """Hand the next requests that match on, and cut the connection instead of giving the reply."""
        self.answer(request, 0, times=times)

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Hand no reply on for a while, as a network does that fails without a word."""
        self._muted = True
        yield
        self._muted = False

    # --- threads ------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._tracked(client), self._connect() as upstream, self._tracked(upstream):
            head, body = _request(client)
            if not head:
                return
            line = head.split(b"\r\n", 1)[0].decode()
            rule = self._rule(line)
            if rule is not None and rule.status:
                client.sendall(_error(rule))
                return
            upstream.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            while data := upstream.recv(65536):
                if rule is None and not self._muted:
                    client.sendall(data)

    def _connect(self) -> socket.socket:
        if isinstance(self._upstream, tuple):
            return socket.create_connection(self._upstream)
        found = socket.socket(socket.AF_UNIX)
        found.connect(self._upstream)
        return found

    @contextmanager
    def _tracked(self, one: socket.socket) -> Iterator[None]:
        with closing(one):
            with self._lock:
                self._open.add(one)
            try:
                yield
            finally:
                with self._lock:
                    self._open.discard(one)

    def _rule(self, line: str) -> Rule | None:
        with self._lock:
            self.requests.append(line)
            for rule in self._rules:
                if rule.times and rule.request.search(line):
                    rule.times -= 1
                    return rule
        return None


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    """Return the head of a request without its blank line and without Connection, and its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return b"", b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += client.recv(65536)
    return re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head), body


def _error(rule: Rule) -> bytes:
    text = json.dumps({"message": rule.message}).encode()
    head = f"HTTP/1.1 {rule.status} Test\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + text
