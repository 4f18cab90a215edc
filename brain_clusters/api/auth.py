"""Who may call. With keys: whoever has one. Without: programs of this machine, and no web page of another origin."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

import flask
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from brain_clusters.api.context import control
from brain_clusters.domain.addresses import is_loopback

# Probes and monitors have no key. All else needs one, also what is added later.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/version"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", re.IGNORECASE)


def check() -> None:
    """Refuse the request at hand when it may not be answered."""
    keys = control().settings.api_keys
    if keys:
        if flask.request.path not in _OPEN_PATHS:
            check_key(keys, "BRAIN_API_KEYS")
    else:
        check_local("BRAIN_API_KEYS")


def check_key(keys: Sequence[str], variable: str) -> None:
    """Refuse the request at hand when it bears none of ``keys``, which ``variable`` holds."""
    scheme, _, given = flask.request.headers.get("Authorization", "").partition(" ")
    sent = given.strip().encode("utf-8", "surrogateescape")
    # Every key is compared, in constant time: the answer's delay tells nothing about them.
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthorized(
            f"send a key of {variable} as Authorization: Bearer KEY",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "brain-clusters"}),
        )


def check_local(variable: str) -> None:
    """Refuse the request at hand, which needs no key, when it may come from a web page. variable: of the keys."""
    _check_host(variable)
    if flask.request.method not in _SAFE_METHODS:
        _check_origin()


def _check_host(variable: str) -> None:
    """A page that had its own name point to 127.0.0.1 (DNS rebinding) still sends that name as Host."""
    found = _HOST.fullmatch(flask.request.headers.get("Host", ""))
    if found is None or not is_loopback(found["name"].strip("[]")):
        raise Forbidden(
            f"without {variable} only requests to the names of loopback are answered: 127.0.0.1, localhost and [::1]"
        )


def _check_origin() -> None:
    request = flask.request
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.headers.get('Host', '')}".lower()
    foreign = origin is not None and origin.lower() != own
    if foreign or request.headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise Forbidden("a web page of another origin may not change anything here")
