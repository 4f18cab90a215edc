"""A Genesis service as a process of its own, and a proxy before it that does what bad networks do."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brain_clusters.genesis.driver import Driver, Factory, Kit
from brain_clusters.genesis.remote.driver import make
from brain_clusters.ports import free_port

KEY = "a-key-of-the-genesis-service"
Until = Callable[..., Any]


class Service:
    """``brain-clusters genesis`` on a home of its own; it can be killed and started again."""

    def __init__(self, folder: Path, until: Until, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = folder / "genesis"
        self._until = until
        self._variables = {"BRAIN_HOME": str(self.home), "BRAIN_GENESIS_KEY": f"{KEY},{KEY}-2", **variables}
        self._log = folder / "genesis.log"
        self.start()

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "brain_clusters", "genesis", "--listen", f"127.0.0.1:{self.port}"],
                env={**kept, **self._variables}, stdout=log, stderr=log, cwd=self._log.parent, start_new_session=True,
            )  # fmt: skip
        self._until(self._answers, "the service answers")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        with suppress(OSError):
            return self.request("GET", "/healthz", key=None)[0] == 200
        return False

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def kill(self) -> None:
        """Kill it with -9, its worker, too."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, **headers: str
    ) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the answer."""
        status, data, _ = self.exchange(method, path, body, key=key, **headers)
        return status, data

    def exchange(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send a request; return the status, the JSON, and the headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, dict(answer.getheaders())
        finally:
            connection.close()

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def running_service(folder: Path, until: Until, **variables: str) -> Iterator[Service]:
    """A service for as long as the block lasts. Its agents are the caller's to end."""
    service = Service(folder, until, variables)
    try:
        yield service
    finally:
        with suppress(ProcessLookupError):
            service.stop()


def remote(url: str, **settings: Any) -> Factory:
    """Return the factory of the driver remote for the service at ``url``."""

    def factory(kit: Kit) -> Driver:
        changed = {"genesis_url": url, "genesis_key": (KEY,), **settings}
        return make(replace(kit, settings=replace(kit.settings, **changed)))

    return factory


class Proxy:
    """Stands before a service and hands on bytes, unless ``faults`` say what to do with the next requests.

    Each fault is taken by one request whose line contains ``only``: a function of (client, service, request).
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.faults: deque[Fault] = deque()
        self.only = ""
        self.seen: list[bytes] = []
        self._open: set[socket.socket] = set()
        self.open()

    def open(self) -> None:
        """Listen, once more after ``close``."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        with suppress(OSError), client:
            while request := _message(client):
                self.seen.append(request)
                line = request.split(b"\r\n", 1)[0].decode()
                fault = self.faults.popleft() if self.faults and self.only in line else hand_on
                with socket.create_connection(("127.0.0.1", self._target), timeout=60) as service:
                    fault(client, service, request)
                if fault is not hand_on:
                    break
        self._open.discard(client)

    def requests(self, line: str) -> list[bytes]:
        """Return the requests seen whose first line contains ``line``."""
        return [one for one in list(self.seen) if line.encode() in one.split(b"\r\n", 1)[0]]

    def cut(self) -> None:
        """Cut all connections."""
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, and listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        self.cut()


Fault = Callable[[socket.socket, socket.socket, bytes], None]


def _message(peer: socket.socket) -> bytes:
    """Read one HTTP message that has a Content-Length, or no body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += peer.recv(65536)
    return head + b"\r\n\r\n" + body


def hand_on(client: socket.socket, service: socket.socket, request: bytes) -> None:
    """Do as if nothing stood in between."""
    service.sendall(request)
    client.sendall(_message(service))


def lose_reply(client: socket.socket, service: socket.socket, request: bytes) -> None:
    """Have the request done, and lose the answer."""
    service.sendall(request)
    _message(service)


def cut_reply(client: socket.socket, service: socket.socket, request: bytes) -> None:
    """Cut the connection in the middle of the answer's body."""
    service.sendall(request)
    answer = _message(service)
    client.sendall(answer[: answer.find(b"\r\n\r\n") + 10])


def refuse(client: socket.socket, service: socket.socket, request: bytes) -> None:
    """Hang up before anything is answered."""


def saying(status: str, body: str = "", **headers: str) -> Fault:
    """Answer in the service's place."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    data = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n{body}".encode()

    def fault(client: socket.socket, service: socket.socket, request: bytes) -> None:
        client.sendall(data)

    return fault


def silence_until(released: threading.Event) -> Fault:
    """Have the request done, and say nothing of it before ``released``."""

    def fault(client: socket.socket, service: socket.socket, request: bytes) -> None:
        service.sendall(request)
        answer = _message(service)
        released.wait(60)
        client.sendall(answer)

    return fault
