"""The Flask application, made by a factory."""

from __future__ import annotations

from typing import Any

import flask
from werkzeug.middleware.proxy_fix import ProxyFix

from brain_clusters.api import auditing, auth, following, limits, problems, release
from brain_clusters.api.context import attach, commit
from brain_clusters.api.requests import BODY_LIMIT_BYTES
from brain_clusters.api.routes import (
    agents,
    applying,
    audit,
    blueprints,
    clusters,
    costs,
    dead_letters,
    documents,
    events,
    hosts,
    jobs,
    keys,
    lifecycle,
    metrics,
    operations,
    overview,
    rollouts,
    scaling,
    sessions,
    system,
)
from brain_clusters.api.streaming.hub import Hub
from brain_clusters.errors import NotFound
from brain_clusters.services.control import Control

_ROUTES = (
    agents,
    applying,
    audit,
    blueprints,
    clusters,
    costs,
    dead_letters,
    documents,
    events,
    hosts,
    jobs,
    keys,
    lifecycle,
    metrics,
    operations,
    overview,
    rollouts,
    scaling,
    sessions,
    system,
)
# Nothing of another site, nothing inline, and in no frame: text that got into a page stays text.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PLAIN_POLICY = "default-src 'none'; frame-ancestors 'none'"


def create_app(control: Control) -> flask.Flask:
    """Return the application on ``control``, which stays the caller's to close."""
    app = flask.Flask("brain_clusters.api", static_folder=None)
    # One more than is allowed: Werkzeug cuts a chunked body there without a word, and so the reader sees it.
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT_BYTES + 1
    app.url_map.merge_slashes = False
    attach(app, control, Hub(control, control.settings.api_listeners))
    app.url_value_preprocessor(_refuse_nul)
    following.register(app)
    auth.register(app)
    app.after_request(auditing.finish)
    app.after_request(_spare_known)
    app.after_request(_name_version)
    app.after_request(_protect)
    app.after_request(limits.tell)
    if control.settings.trusted_proxies:
        trusted = dict.fromkeys(("x_for", "x_proto", "x_host"), control.settings.trusted_proxies)
        app.wsgi_app = ProxyFix(app.wsgi_app, **trusted)  # type: ignore[method-assign]
    problems.register(app)
    for module in _ROUTES:
        app.register_blueprint(module.routes)
    return app


def _refuse_nul(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Nothing has an id with a NUL character, and PostgreSQL would not even look for it."""
    if any("\0" in str(value) for value in (values or {}).values()):
        raise NotFound("there is nothing with such an id")


def _spare_known(response: flask.Response) -> flask.Response:
    """Answer 304 to one who has what it asks for."""
    tag, _ = response.get_etag()
    if tag and response.status_code == 200 and flask.request.method in ("GET", "HEAD"):
        known = flask.request.if_none_match
        if known.star_tag or known.contains_weak(tag):
            response.status_code = 304
            response.set_data(b"")
            response.headers.remove("Content-Type")
    return response


def _name_version(response: flask.Response) -> flask.Response:
    response.headers["X-Brain-Version"] = release.tag(commit())
    return response


def _protect(response: flask.Response) -> flask.Response:
    page = response.mimetype == "text/html"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY if page else _PLAIN_POLICY)
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if page:
        response.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        response.headers.setdefault("X-Frame-Options", "DENY")
    if page or flask.request.path.startswith(("/api/", "/login", "/logout")):
        response.headers["Cache-Control"] = "no-store"
    return response
