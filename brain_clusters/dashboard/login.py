"""Signing in."""

from __future__ import annotations

import flask

from brain_clusters.api import pages
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.services.requests import Schema

routes = screen("login")

_QUERY: Schema = {
    "next": {"type": "string", "maxlength": 2000},
    "error": {"type": "string", "maxlength": 20},
}
_TOLD = {
    "key": "This key is unknown, has ended or was revoked.",
    "throttled": "Too many wrong keys came from your address. Wait a minute, then try again.",
}


@routes.get("/login")
@endpoint(None, query=_QUERY, page=True)
def show(query: Document) -> flask.Response:
    """Ask for a key. It is sent to POST /login, which answers with a session."""
    wanted = pages.local_path(query.get("next"))
    if control().settings.insecure_dev:
        return flask.redirect(wanted, 303)  # type: ignore[return-value]
    error = _TOLD.get(query.get("error", ""))
    return page("login.html", title="Sign in", poll=0, next=wanted, error=error)
