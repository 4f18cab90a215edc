"""Who may call what. Whoever has a key, as far as its role and its tags go; deny by default.

Without keys, which has to be asked for: programs of this machine, and no web page of another origin.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from contextlib import ExitStack

import flask
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Endpoint, declared
from brain_clusters.db.scope import narrowed
from brain_clusters.domain.access import LOCAL, Identity
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.services import access

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", re.IGNORECASE)


def register(app: flask.Flask) -> None:
    """Have every request of ``app`` judged, and what it reads narrowed to what its caller may see."""
    app.before_request(_check)
    app.teardown_request(_widen)


def identity() -> Identity:
    """Return who sent the request at hand, which was let in."""
    found = flask.g.identity
    assert isinstance(found, Identity)  # noqa: S101 - _check() put it there
    return found


def _check() -> None:
    """Refuse the request at hand when it may not be answered."""
    if control().settings.insecure_dev:
        check_local("BRAIN_INSECURE_DEV")
    request = flask.request
    found = declared(flask.current_app.view_functions.get(request.endpoint)) if request.endpoint else None
    if found is not None and found.role is None:
        return
    caller = flask.g.identity = _identify()
    if request.endpoint is None:
        return  # there is nothing at this path, which only those are told who have a key
    if found is None:
        raise Forbidden("nobody may call this")
    _judge(caller, found)
    flask.g.narrowed = ExitStack()
    flask.g.narrowed.enter_context(narrowed(caller.tags))


def _widen(_exc: BaseException | None) -> None:
    found = flask.g.pop("narrowed", None)
    if found is not None:
        found.close()


def _judge(caller: Identity, found: Endpoint) -> None:
    assert found.role is not None  # noqa: S101 - open endpoints are not judged
    if not caller.role.covers(found.role):
        raise Forbidden(f"this needs the role {found.role}, and the key {caller.name!r} has the role {caller.role}")
    if found.everywhere and not caller.sees_all:
        raise Forbidden(f"this concerns all clusters; the key {caller.name!r} is for those tagged {_listed(caller)}")


def _listed(caller: Identity) -> str:
    return ", ".join(repr(tag) for tag in caller.tags)


def _identify() -> Identity:
    """Return the caller; raise Unauthorized."""
    if control().settings.insecure_dev:
        return LOCAL
    scheme, _, given = flask.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise _unauthorized("send a key as Authorization: Bearer KEY; an admin's is in BRAIN_HOME/admin.key")
    found = access.identify(control(), given.strip(), flask.request.remote_addr)
    if found is None:
        raise _unauthorized("this key is unknown, has ended or was revoked")
    return found


def _unauthorized(told: str) -> Unauthorized:
    return Unauthorized(told, www_authenticate=WWWAuthenticate("bearer", {"realm": "brain-clusters"}))


def check_key(keys: Sequence[str], variable: str) -> None:
    """Refuse the request at hand when it bears none of ``keys``, which ``variable`` holds."""
    scheme, _, given = flask.request.headers.get("Authorization", "").partition(" ")
    sent = given.strip().encode("utf-8", "surrogateescape")
    # Every key is compared, in constant time: the answer's delay tells nothing about them.
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise _unauthorized(f"send a key of {variable} as Authorization: Bearer KEY")


def check_local(variable: str) -> None:
    """Refuse the request at hand, which needs no key, when it may come from a web page. variable: why it needs none."""
    _check_host(variable)
    if flask.request.method not in _SAFE_METHODS:
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
    if foreign or request.headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise Forbidden("a web page of another origin may not change anything here")
