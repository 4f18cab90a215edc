"""Follows what a Genesis service tells: a listing, then long polls from its cursor on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.driver import Sighting
from brain_clusters.genesis.remote.client import GenesisClient

# How long the service may wait for a change; well below what proxies cut.
_WAIT_SECONDS = 15.0
_ANSWER_SECONDS = 10.0

# Notes the agents of an answer and returns those that are news. whole: it is a listing.
Sift = Callable[[Any, bool], Sequence[Sighting]]


class Following:
    """Implements ``genesis.watching.Source``. before: is called before each request."""

    def __init__(
        self, client: GenesisClient, prefix: str, ask: Callable[[Callable[[], Any]], Any], sift: Sift,
        before: Callable[[], None],
    ) -> None:  # fmt: skip
        self._client = client
        self._prefix = prefix
        self._ask = ask
        self._sift = sift
        self._before = before
        self._hung_up = threading.Event()
        self._socket: socket.socket | None = None

    def follow(self) -> Iterator[Sequence[Sighting]]:
        """Yield the service's listing, then its changes."""
        found = self._ask(lambda: self._get("/agents", _ANSWER_SECONDS))
        yield self._sift(found, True)
        while not self._hung_up.is_set():
            self._before()
            path = f"/changes?after={self._cursor(found)}&wait={_WAIT_SECONDS:g}"
            found = self._get(path, _WAIT_SECONDS + _ANSWER_SECONDS)
            yield self._sift(found, False)

    def hang_up(self) -> None:
        """Cut the connection on which an answer is waited for."""
        self._hung_up.set()
        self._cut()

    def _cut(self) -> None:
        found = self._socket
        if found is not None:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)

    def _get(self, path: str, seconds: float) -> Any:
        found = self._client.once("GET", f"{self._prefix}{path}", seconds=seconds, trace=self._trace)
        if not isinstance(found, dict):
            raise TemporaryError(f"what answers at {self._client.place} is no Genesis service")
        return found

    def _cursor(self, found: Mapping[str, Any]) -> str:
        cursor = found.get("cursor")
        if not isinstance(cursor, str):
            raise TemporaryError(f"what answers at {self._client.place} is no Genesis service: it gave no cursor")
        return cursor

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep a copy of each new connection's socket: closing a client does not wake who reads from it."""
        if event != "connection.connect_tcp.complete":
            return
        if self._socket is not None:
            self._socket.close()
        self._socket = info["return_value"].get_extra_info("socket").dup()
        if self._hung_up.is_set():
            self._cut()

    def close(self) -> None:
        """Let go of the connection, after the last ``follow`` has ended."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._client.close()
