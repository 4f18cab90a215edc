"""How a handler's requests reach the network: one client a job, which connects to checked and pinned addresses only.

A name is resolved once a job. Every address that it has is checked, and the connection goes to one of them by number;
the Host header and the check of the certificate stay those of the name. So an answer of the name server that changes
between the check and the connection changes nothing. Waits are short slices, between which cancellation and the
deadline are looked at, however slowly the other side drips.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore2
import httpx2

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError, JobTimeout
from brain_clusters.domain.addresses import Network, may_connect

# Between two looks whether to go on. Short against a person's patience, long against what a look costs.
_SLICE_SECONDS = 0.25
_PIECE_BYTES = 65_536
_CONNECT_SECONDS = 30.0

Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` as the system resolves it, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for the requests of one job.

    allowed: networks besides the public internet; None allows every address. total_seconds: the longest that all may
    take together; idle_seconds: the longest that the other side may be silent. most_bytes: what it may send in all.
    """

    allowed: Sequence[Network] | None = ()
    total_seconds: float
    idle_seconds: float | None = None
    most_bytes: int | None = None


class Pace:
    """Says how long one wait may be. Raises JobCancelled, JobTimeout and httpcore's timeouts when it is over."""

    def __init__(self, context: JobContext, rules: Rules) -> None:
        self._context = context
        self._rules = rules
        self._ends_at = time.monotonic() + rules.total_seconds
        self._received = 0

    def look(self) -> float:
        """Return the seconds that are left."""
        self._context.raise_if_cancelled()
        if self._context.deadline is not None and time.time() >= self._context.deadline:
            raise JobTimeout("the deadline of the attempt has passed")
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout(f"it took longer than {self._rules.total_seconds:g} s")
        return left

    def idle_until(self) -> float:
        """Return until when the other side may be silent from now on, on the monotonic clock."""
        idle = self._rules.idle_seconds
        return self._ends_at if idle is None else min(self._ends_at, time.monotonic() + idle)

    def received(self, count: int) -> None:
        """Count bytes that came; raise HandlerError for too many."""
        self._received += count
        most = self._rules.most_bytes
        if most is not None and self._received > most:
            raise HandlerError(f"the answer is longer than {most} bytes, which is the limit")


class _Stream(httpcore2.NetworkStream):
    """A connection whose waits are slices."""

    def __init__(self, inner: httpcore2.NetworkStream, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - Pace knows
        """Wait for bytes, in slices: a read that timed out loses nothing and can be repeated."""
        silent_until = self._pace.idle_until()
        while True:
            left = self._pace.look()
            if time.monotonic() >= silent_until:
                raise httpcore2.ReadTimeout("nothing came for too long")
            try:
                data = self._inner.read(max_bytes, timeout=min(left, _SLICE_SECONDS))
            except httpcore2.ReadTimeout:
                continue
            self._pace.received(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send in pieces. What a piece that timed out had sent is not known, so each has all the time that is left."""
        for start in range(0, len(buffer), _PIECE_BYTES):
            self._inner.write(buffer[start : start + _PIECE_BYTES], timeout=self._pace.look())

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        """Begin TLS with the name that was asked for, not with the address."""
        left = min(self._pace.look(), _CONNECT_SECONDS)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout=left), self._pace)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows of itself."""
        return self._inner.get_extra_info(info)


class PinnedBackend(httpcore2.NetworkBackend):
    """Connects to the addresses that a name had when it was first asked for, after all of them were checked."""

    def __init__(self, pace: Pace, allowed: Sequence[Network] | None, resolving: Resolve = resolve) -> None:
        self._pace = pace
        self._allowed = allowed
        self._resolve = resolving
        self._pinned: dict[str, Sequence[str]] = {}
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that answers."""
        fault: Exception | None = None
        for address in self._addresses(host, port):
            left = min(self._pace.look(), _CONNECT_SECONDS)
            try:
                return _Stream(self._inner.connect_tcp(address, port, left, local_address, socket_options), self._pace)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                fault = exc
        raise fault or httpcore2.ConnectError(f"{host} has no address")

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        if host not in self._pinned:
            try:
                found = self._resolve(host, port)
            except (OSError, UnicodeError) as exc:
                raise httpcore2.ConnectError(f"the name {host} cannot be resolved: {exc}") from None
            for address in found:
                if self._allowed is not None and not may_connect(address, self._allowed):
                    raise HandlerError(
                        f"{host} is at {address}, which is no public address; an operator can allow its network with "
                        "BRAIN_HTTP_ALLOWED_NETWORKS"
                    )
            self._pinned[host] = found
        return self._pinned[host]


class _Transport(httpx2.HTTPTransport):
    """httpx's own transport on a network backend of ours, for which it has no parameter. No proxies."""

    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        super().__init__(verify=ssl_context(), trust_env=False)
        self._pool = httpcore2.ConnectionPool(ssl_context=ssl_context(), network_backend=backend)


@lru_cache(maxsize=1)
def ssl_context() -> ssl.SSLContext:
    """Return the context of all connections: reading the certificates of the system takes long."""
    return httpx2.create_ssl_context()


def client(context: JobContext, rules: Rules, *, resolving: Resolve = resolve) -> httpx2.Client:
    """Return a client for one job. Follows no redirects, reads no environment, and logs no addresses."""
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    backend = PinnedBackend(Pace(context, rules), rules.allowed, resolving)
    # Its own timeouts are off: ``Pace`` has them all.
    return httpx2.Client(transport=_Transport(backend), trust_env=False, follow_redirects=False, timeout=None)
