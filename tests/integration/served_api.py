"""The API as it is served: gunicorn in a process of its own."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import TracebackType

import pytest

from brain_clusters.config import Settings, child_environment
from brain_clusters.ports import free_port

_SERVE = """
from brain_clusters.api.server import serve
from brain_clusters.config import Settings

serve(Settings.from_env())
"""
_SERVE_PAGES = """
from brain_clusters import dashboard
from brain_clusters.api.server import serve
from brain_clusters.config import Settings

serve(Settings.from_env(), dashboard.attach)
"""


class ServedApi:
    """A running API, which ends with the context. pages: with the dashboard."""

    def __init__(self, settings: Settings, port: int | None = None, *, pages: bool = False) -> None:
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE_PAGES if pages else _SERVE],
            env=child_environment(replace(settings, api_port=self.port)),
            stderr=subprocess.PIPE,
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.request("GET", "/healthz")
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail("the API never answered")

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Send one request; return the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send ``data`` as it is and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            peer.sendall(data)
            return peer.recv(65536)

    def stop(self) -> str:
        """Ask it to stop and return what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, written = self.process.communicate(timeout=30)
        return written.decode()

    def __enter__(self) -> ServedApi:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.stop()
