"""Signing in and out, who one is, and the sessions that there are."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import flask

from brain_clusters.api import access_answers, auditing, auth, pages
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.api.origin import check_origin
from brain_clusters.api.requests import read_body
from brain_clusters.domain.access import Identity, Role
from brain_clusters.services import sessions
from brain_clusters.services.access_requests import LOGIN
from brain_clusters.services.requests import NOTHING, validated

routes = flask.Blueprint("sessions", __name__)

_FORM = "application/x-www-form-urlencoded"


@routes.post("/login")
@endpoint(None, reads=LOGIN, answers={200: access_answers.SIGNED_IN, 303: None})
def login() -> flask.Response:
    """Sign in with a key: sets the cookie of the session. A form is led on to ``next``, JSON is told who it is."""
    check_origin()
    form = flask.request.mimetype == _FORM
    asked = validated(flask.request.form.to_dict() if form else read_body(), LOGIN, "the request")
    next_path, address = pages.local_path(asked.get("next")), flask.request.remote_addr
    try:
        identity = auth.by_key(asked["key"].strip())
        auditing.identified(identity)
    except auth.REFUSED as exc:
        if form and pages.attached():
            return pages.login_again(next_path, error="throttled" if exc.code == 429 else "key")
        raise
    secret, found = sessions.open_for(control(), identity, address, flask.request.headers.get("User-Agent"))
    if form:
        response = flask.Response(status=303, headers={"Location": next_path})
        response.autocorrect_location_header = False
    else:
        response = answer({"identity": shown(found.identity), **_session(found.id, secret, found.expires_at)})
    auth.set_cookie(response, secret)
    return response


@routes.post("/logout")
@endpoint(Role.VIEWER, reads=NOTHING, answers={204: None})
def logout() -> flask.Response:
    """Sign out: the session of the request ends."""
    found = auth.signed_in()
    if found is not None:
        with control().database.transaction() as session:
            sessions.end(session, found.identity, found.id)
    response = flask.Response(status=204)
    auth.drop_cookie(response)
    return response


@routes.get("/api/me")
@endpoint(Role.VIEWER, answers={200: access_answers.ME})
def me() -> flask.Response:
    """Say who calls, what that one may do, and what a session has to send with whatever changes something."""
    found = auth.signed_in()
    told: dict[str, Any] = {"session": None, "csrf_token": None}
    if found is not None:
        told = _session(found.id, flask.request.cookies[auth.COOKIE], found.expires_at)
    return answer({**shown(auth.identity()), **told})


@routes.get("/api/sessions")
@endpoint(Role.VIEWER, answers={200: access_answers.SESSIONS})
def listing() -> flask.Response:
    """List who is signed in: with one's own key, and for an admin with the keys that it manages."""
    here, settings = auth.signed_in(), control().settings
    with control().database.transaction() as session:
        found = sessions.listing(session, settings, auth.identity())
    rows = [
        {
            "id": one.id, "key_id": one.row.key_id, "key_name": one.key_name or "BRAIN_API_KEYS",
            "created_at": one.row.created_at, "expires_at": one.row.expires_at, "seen_at": one.row.seen_at,
            "address": one.row.address, "user_agent": one.row.user_agent,
            "current": here is not None and here.id == one.id,
        }
        for one in found
    ]  # fmt: skip
    return answer({"sessions": rows, "total": len(rows)})


@routes.delete("/api/sessions/<session_id>")
@endpoint(Role.VIEWER, body=NOTHING, answers={204: None})
def end(session_id: str) -> flask.Response:
    """End a session."""
    with control().database.transaction() as session:
        sessions.end(session, auth.identity(), session_id)
    return flask.Response(status=204)


def shown(found: Identity) -> dict[str, Any]:
    """Return who somebody is and what that one may do."""
    return {
        "name": found.name, "role": found.role, "payloads": found.payloads, "tags": list(found.tags),
        "key_id": found.key_id, "method": found.method,
    }  # fmt: skip


def _session(session_id: str, secret: str, expires_at: datetime) -> dict[str, Any]:
    return {
        "session": {"id": session_id, "expires_at": expires_at},
        "csrf_token": sessions.csrf_token(secret),
    }
