"""Who may call what. Whoever has a key or is signed in, as far as the role and the tags go; deny by default.

Without keys, which has to be asked for: programs of this machine, and no web page of another origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from contextlib import ExitStack

import flask
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized

from brain_clusters.api import auditing, limits, pages
from brain_clusters.api.context import control, tokens
from brain_clusters.api.endpoint import Endpoint, declared
from brain_clusters.api.origin import SAFE_METHODS, check_local, check_name, check_origin
from brain_clusters.db.scope import narrowed
from brain_clusters.domain.access import LOCAL, Identity
from brain_clusters.services import access, sessions
from brain_clusters.services.sessions import SignedIn
from brain_clusters.services.tokens import looks_like_one

COOKIE = "brain_session"
CSRF_HEADER = "X-CSRF-Token"
REFUSED = (Unauthorized, TooManyRequests)


def register(app: flask.Flask) -> None:
    """Have every request of ``app`` judged, and what it reads narrowed to what its caller may see."""
    app.before_request(_check)
    app.teardown_request(_widen)


def identity() -> Identity:
    """Return who sent the request at hand, which was let in."""
    found = flask.g.identity
    assert isinstance(found, Identity)  # noqa: S101 - _check() put it there
    return found


def signed_in() -> SignedIn | None:
    """Return the session that the request at hand was let in by; None when that was a key."""
    found: SignedIn | None = flask.g.get("signed_in")
    return found


def csrf_token() -> str | None:
    """Return what a page of the request at hand has to send with whatever changes something; None without session."""
    return sessions.csrf_token(flask.request.cookies[COOKIE]) if signed_in() else None


def _check() -> flask.Response | None:
    """Refuse the request at hand when it may not be answered; return where a page has to lead to instead."""
    auditing.begin()
    if control().settings.insecure_dev:
        check_local("BRAIN_INSECURE_DEV")
    request = flask.request
    found = declared(flask.current_app.view_functions.get(request.endpoint)) if request.endpoint else None
    if found is not None and found.probe:
        return None
    check_name(control().settings.allowed_hosts)
    if found is not None and found.role is None:
        limits.spend(None)
        return None
    try:
        caller = flask.g.identity = _identify()
    except Unauthorized:
        limits.spend(None)
        if pages.renderer() is None:
            raise
        return pages.to_login()
    auditing.identified(caller)
    limits.spend(caller)
    if request.endpoint is None:
        return None  # there is nothing at this path, which only those are told who have a key
    if found is None:
        raise Forbidden("nobody may call this")
    _judge(caller, found)
    flask.g.narrowed = ExitStack()
    flask.g.narrowed.enter_context(narrowed(caller.tags))
    return None


def _widen(_exc: BaseException | None) -> None:
    auditing.end()
    found = flask.g.pop("narrowed", None)
    if found is not None:
        found.close()


def _judge(caller: Identity, found: Endpoint) -> None:
    assert found.role is not None  # noqa: S101 - open endpoints are not judged
    if not caller.role.covers(found.role):
        raise Forbidden(f"this needs the role {found.role}, and the key {caller.name!r} has the role {caller.role}")
    if found.payloads and not caller.payloads:
        raise Forbidden(f"this shows what jobs are given, which the key {caller.name!r} may not read (payloads)")
    if found.everywhere and not caller.sees_all:
        raise Forbidden(f"this concerns all clusters; the key {caller.name!r} is for those tagged {_listed(caller)}")


def _listed(caller: Identity) -> str:
    return ", ".join(repr(tag) for tag in caller.tags)


def _identify() -> Identity:
    """Return the caller; raise Unauthorized, or Forbidden for a session that a page of somebody else makes use of."""
    if control().settings.insecure_dev:
        return LOCAL
    request = flask.request
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        return _by_bearer(given.strip())
    secret = request.cookies.get(COOKIE)
    if not secret or "Authorization" in request.headers:
        raise _unauthorized("send a key as Authorization: Bearer KEY; an admin's is in BRAIN_HOME/admin.key")
    found = flask.g.signed_in = sessions.identify(control(), secret)
    if found is None:
        raise _unauthorized("this session has ended; sign in again")
    if request.method not in SAFE_METHODS:
        _check_csrf(secret)
    return found.identity


def _by_bearer(shown: str) -> Identity:
    """Return whose key or token it is; raise Unauthorized."""
    reader = tokens()
    if reader is None or not looks_like_one(shown):
        return by_key(shown)
    found = reader.identify(shown)
    if found is None:
        limits.note_failure()
        raise _unauthorized("this token is not of our issuer and for us, is over, or gives no role here")
    return found


def by_key(shown: str) -> Identity:
    """Return whose key ``shown`` is; raise Unauthorized, and TooManyRequests after many wrong ones.

    A key of our making cannot be guessed, so it is looked at however many wrong ones came from its address: whoever
    guesses locks nobody out. A person's own choice, of BRAIN_API_KEYS, could be.
    """
    guessable = not access.is_made(shown)
    if guessable:
        limits.check_guesses()
    found = access.identify(control(), shown, flask.request.remote_addr)
    if found is None:
        limits.note_failure()
        raise _unauthorized("this key is unknown, has ended or was revoked")
    if guessable:
        limits.trusted().note(limits.address())
    return found


def _check_csrf(secret: str) -> None:
    """A cookie is sent by whatever page makes the request, so it proves nothing by itself."""
    check_origin()
    sent = flask.request.headers.get(CSRF_HEADER, "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(sent, sessions.csrf_token(secret).encode()):
        raise Forbidden(f"with a session, send {CSRF_HEADER} with what changes something; GET /api/me tells it")


def set_cookie(response: flask.Response, secret: str) -> None:
    """Have the browser keep a session's secret, for no script to read and for no other site to send."""
    response.set_cookie(
        COOKIE, secret, max_age=control().settings.session_seconds, path="/", secure=flask.request.is_secure,
        httponly=True, samesite="Strict",
    )  # fmt: skip


def drop_cookie(response: flask.Response) -> None:
    """Have the browser forget the session."""
    response.delete_cookie(COOKIE, path="/", secure=flask.request.is_secure, httponly=True, samesite="Strict")


def _unauthorized(told: str) -> Unauthorized:
    return Unauthorized(told, www_authenticate=WWWAuthenticate("bearer", {"realm": "brain-clusters"}))


def check_key(keys: Sequence[str], variable: str) -> None:
    """Refuse the request at hand when it bears none of ``keys``, which ``variable`` holds."""
    scheme, _, given = flask.request.headers.get("Authorization", "").partition(" ")
    known = access.place_among(keys, given.strip()) is not None
    if scheme.lower() != "bearer" or not known:
        raise _unauthorized(f"send a key of {variable} as Authorization: Bearer KEY")
