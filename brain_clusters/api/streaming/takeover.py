"""Answering with a stream: the connection becomes the hub's, and the server's thread is free again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import flask

from brain_clusters.api.context import hub
from brain_clusters.api.streaming.hub import Hub
from brain_clusters.api.streaming.listener import Listener

# No store in between may keep a stream, and none may wait for its end.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def stream(listener: Listener, first: bytes) -> flask.Response:
    """Return the answer that begins with ``first`` and goes on with all that ``listener`` gets."""
    found = hub()
    peer = flask.request.environ.get("gunicorn.socket")
    response = flask.Response(headers=_HEADERS, mimetype="text/event-stream")
    # gunicorn's HTTPS is not taken over: a stream of TLS is more than its socket.
    if type(peer) is socket.socket:
        response.response = _handed_over(found, listener, peer, response, first)
    else:
        response.response = _followed(found, listener, first)
    # Also when nobody begins to read the answer.
    response.call_on_close(lambda: None if listener.connected else found.forget(listener))
    return response


def _followed(found: Hub, listener: Listener, first: bytes) -> Iterator[bytes]:
    yield first
    yield from found.follow(listener)


def _handed_over(
    found: Hub, listener: Listener, peer: socket.socket, response: flask.Response, first: bytes
) -> Iterator[bytes]:
    """Give the hub the connection before the server has written anything, and tell the server that it is gone.

    That is the way out which gunicorn has for an answer that need not be finished. Its own socket object is left
    without a descriptor, which is how ``server.Worker`` knows.
    """
    lines = [
        f"HTTP/1.1 {response.status}",
        *(f"{name}: {value}" for name, value in response.headers),
        "Connection: close",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    found.connect(listener, socket.socket(fileno=peer.detach()), head.encode("latin-1") + first)
    raise BrokenPipeError(errno.EPIPE, "the hub has this connection now")
    yield b""
