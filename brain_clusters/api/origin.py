"""Where a request comes from: a program, one of our own pages, or a web page of somebody else."""

from __future__ import annotations

import re
from collections.abc import Collection

import flask
from werkzeug.exceptions import Forbidden

from brain_clusters.domain.addresses import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", re.IGNORECASE)


def check_name(allowed: Collection[str]) -> None:
    """Refuse the request at hand when it names a host that is none of ``allowed``; none of them are all."""
    if not allowed:
        return
    found = _HOST.fullmatch(flask.request.headers.get("Host", ""))
    if found is None or found["name"].lower() not in allowed:
        raise Forbidden("this name is none of BRAIN_ALLOWED_HOSTS")


def check_local(variable: str) -> None:
    """Refuse the request at hand, which needs no key, when it may come from a web page. variable: why it needs none."""
    _check_host(variable)
    if flask.request.method not in SAFE_METHODS:
        check_origin()


def _check_host(variable: str) -> None:
    """A page that had its own name point to 127.0.0.1 (DNS rebinding) still sends that name as Host."""
    found = _HOST.fullmatch(flask.request.headers.get("Host", ""))
    if found is None or not is_loopback(found["name"].strip("[]")):
        raise Forbidden(
            f"without keys ({variable}) only requests to names of loopback are answered: 127.0.0.1, localhost, [::1]"
        )


def check_origin() -> None:
    """Refuse the request at hand when a web page of another origin sends it."""
    request = flask.request
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.headers.get('Host', '')}".lower()
    foreign = origin is not None and origin.lower() != own
    if foreign or request.headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site"):
        raise Forbidden("a web page of another origin may not change anything here")
