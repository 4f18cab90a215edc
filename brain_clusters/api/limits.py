"""How often a caller may ask, and how often an address may guess keys.

The answers tell what is left, in the fields of draft-ietf-httpapi-ratelimit-headers: RateLimit-Policy and RateLimit.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time

import flask
from werkzeug.exceptions import TooManyRequests

from brain_clusters.api.context import control, limiter
from brain_clusters.broker.limiting import Limit, Verdict
from brain_clusters.domain.access import Identity

_MINUTE = 60
# Who has no key has a tenth of what a key has: it can only sign in and ask probes.
_WITHOUT_KEY = 0.1
_FAILURES = Limit("failures", 20, 300)
_ALL_FAILURES = Limit("failures-of-all", 1000, 300)
_EVERYBODY = "all"
# An address that a right key of the environment came from goes on while others guess.
_TRUSTED_SECONDS = 900.0
_MOST_TRUSTED = 10_000


class Trusted:
    """Addresses that right keys came from lately, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def note(self, address: str) -> None:
        """Trust an address for a while."""
        with self._lock:
            if len(self._until) >= _MOST_TRUSTED:
                self._until.clear()
            self._until[address] = time.monotonic() + _TRUSTED_SECONDS

    def has(self, address: str) -> bool:
        """Return whether an address is trusted now."""
        with self._lock:
            return self._until.get(address, 0.0) > time.monotonic()


def spend(caller: Identity | None) -> None:
    """Count the request at hand, of ``caller`` or of its address alone; raise TooManyRequests when it is one too many.

    Requests of this machine that need no key are not counted.
    """
    rate = control().settings.rate_limit
    if rate == 0 or (caller is not None and caller.key_id is None):
        return
    if caller is not None:
        limit, who = Limit("key", rate, _MINUTE), str(caller.key_id)
    else:
        limit, who = Limit("address", max(10, int(rate * _WITHOUT_KEY)), _MINUTE), address()
    found = flask.g.rate_limit = limiter().use(limit, who)
    if not found.allowed:
        told = f"{limit.uses} requests in {limit.seconds} s are the most; try again in {_seconds(found)} s"
        raise TooManyRequests(told, retry_after=_seconds(found))


def tell(response: flask.Response) -> flask.Response:
    """Add to an answer how many requests are left."""
    found: Verdict | None = flask.g.get("rate_limit")
    if found is not None:
        name, limit = found.limit.name, found.limit
        response.headers["RateLimit-Policy"] = f'"{name}";q={limit.uses};w={limit.seconds}'
        response.headers["RateLimit"] = f'"{name}";r={found.left};t={_seconds(found)}'
    return response


def check_guesses() -> None:
    """Raise TooManyRequests when the address at hand, or all together, gave too many wrong keys."""
    if trusted().has(address()):
        return
    for limit, who in ((_FAILURES, address()), (_ALL_FAILURES, _EVERYBODY)):
        wait = limiter().blocked(limit, who)
        if wait:
            raise _too_many_failures(wait)


def note_failure() -> None:
    """Count a wrong key; raise TooManyRequests when it is one too many."""
    verdicts = [limiter().use(limit, who) for limit, who in ((_FAILURES, address()), (_ALL_FAILURES, _EVERYBODY))]
    refused = [one for one in verdicts if not one.allowed]
    if refused:
        raise _too_many_failures(max(one.reset_seconds for one in refused))


def _too_many_failures(seconds: float) -> TooManyRequests:
    wait = max(1, math.ceil(seconds))
    return TooManyRequests(f"too many wrong keys; try again in {wait} s", retry_after=wait)


def trusted() -> Trusted:
    """Return the addresses that are trusted by the application at hand."""
    found: Trusted = flask.current_app.extensions.setdefault("brain_trusted", Trusted())
    return found


def address() -> str:
    """Return where the request at hand comes from; of IPv6 the network that one customer has."""
    told = flask.request.remote_addr or "unknown"
    try:
        found = ipaddress.ip_address(told.partition("%")[0])
    except ValueError:
        return told
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((found, 64), strict=False))


def _seconds(found: Verdict) -> int:
    return max(1, math.ceil(found.reset_seconds))
