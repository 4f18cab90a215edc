"""The API as it is served: gunicorn in a process of its own, spoken to over raw sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from brain_clusters.config import Settings
from brain_clusters.services.blueprints import store
from brain_clusters.services.control import Control
from tests.integration.served_api import ServedApi

_BLUEPRINT = """
metadata: {id: office, name: An office, version: "1.0"}
cluster: {type: department, min_workers: 1, max_workers: 8}
agents: [{role: supervisor, name: Head, count: 1}]
"""


@pytest.fixture(scope="module")
def server(settings: Settings, control: Control) -> Iterator[ServedApi]:
    store(control, _BLUEPRINT)
    with ServedApi(settings) as server:
        yield server


def test_it_answers_and_is_ready(server: ServedApi) -> None:
    assert server.request("GET", "/readyz")[0] == 200
    body = b'{"blueprint_id": "office", "name": "n"}'
    assert server.request("POST", "/api/clusters", body, **{"Content-Type": "application/json"})[0] == 202


def test_a_chunked_body_is_read_and_capped(server: ServedApi) -> None:
    head = (
        b"POST /api/clusters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert b" 202 " in server.raw(head + b'27\r\n{"blueprint_id": "office", "name": "n"}\r\n0\r\n\r\n')
    assert b" 400 " in server.raw(head + chunk * 16 + b"0\r\n\r\n")
    assert b" 413 " in server.raw(head + chunk * 16 + b"1\r\nx\r\n0\r\n\r\n")
    assert b" 413 " in server.raw(head + chunk * 17 + b"0\r\n\r\n")


def test_a_body_that_is_too_large_is_413_before_it_is_read(server: ServedApi) -> None:
    assert server.request("POST", "/api/clusters", b" " * (2 << 20), **{"Content-Type": "application/json"})[0] == 413
    assert server.request("POST", "/api/clusters", b"[" * (1 << 20), **{"Content-Type": "application/json"})[0] == 400


@pytest.mark.parametrize(
    "data",
    [
        b"POST /api/clusters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /api/clusters HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/clusters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"GET /api/clusters/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/clusters/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/clusters?name=%ff%00&cursor=%80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/clusters HTTP/1.1\r\nHost: \xff\xfe\r\nAuthorization: Bearer \xff\r\n\r\n",
        b"GET /api/clusters HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/api/clusters HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"FOO / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_sound_http_is_a_4xx(server: ServedApi, data: bytes) -> None:
    assert server.raw(data).split(b" ")[1].startswith(b"4"), data


def test_sigterm_stops_it_with_a_request_in_its_hands(settings: Settings, control: Control) -> None:
    store(control, _BLUEPRINT)
    server = ServedApi(settings)
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    body = b'{"blueprint_id": "office", "name": "n"}'
    peer.sendall(
        b"POST /api/clusters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: wait=60\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    written = server.stop()
    peer.close()
    assert server.process.returncode == 0
    assert "Traceback" not in written, written
