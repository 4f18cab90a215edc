"""What pages for people need of the API: who is not signed in is sent to /login, and errors are pages, too.

An application without pages has none of this. Pages are views that are declared with ``page=True``; a path that
nothing answers is one when a browser asks for it, outside of /api.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

import flask

from brain_clusters.api.endpoint import declared

# Given a problem's status, title and detail, it returns the page that says so.
Render = Callable[[int, str, str], flask.Response]
_NAME = "brain_pages"
LOGIN_PATH = "/login"
_LONGEST_PATH = 2000
_PROGRAMS = ("/api", "/metrics")


def attach(app: flask.Flask, render: Render) -> None:
    """Have errors on pages of ``app`` shown by ``render``, and who is not signed in sent to ``LOGIN_PATH``."""
    app.extensions[_NAME] = render


def attached() -> bool:
    """Return whether the application that answers has pages."""
    return _NAME in flask.current_app.extensions


def renderer() -> Render | None:
    """Return what shows the errors of the request at hand; None when it is not for a page."""
    found: Render | None = flask.current_app.extensions.get(_NAME)
    return found if found is not None and _for_page() else None


def _for_page() -> bool:
    request = flask.request
    if request.endpoint is not None:
        found = declared(flask.current_app.view_functions.get(request.endpoint))
        return found is not None and found.page
    path = request.path
    if any(path == one or path.startswith(f"{one}/") for one in _PROGRAMS):
        return False
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", "")


def to_login(**told: str) -> flask.Response:
    """Return the redirect of a request to the sign-in, which leads back to what was asked for."""
    request = flask.request
    wanted = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else "/"
    return login_again(local_path(wanted), **told)


def login_again(next_path: str, **told: str) -> flask.Response:
    """Return a redirect to the sign-in, which leads to ``next_path``. told: parameters for its page."""
    given = {**told, **({"next": next_path} if next_path != "/" else {})}
    query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in given.items())
    response = flask.Response(status=303, headers={"Location": f"{LOGIN_PATH}?{query}" if query else LOGIN_PATH})
    response.autocorrect_location_header = False
    return response


def local_path(text: str | None) -> str:
    """Return ``text`` when it is a path here and of no other site, else ``/``."""
    if not text or len(text) > _LONGEST_PATH or not text.startswith("/"):
        return "/"
    # Browsers take a backslash for a slash, and drop control characters: //evil.example in other clothes.
    if text[1:2] in ("/", "\\") or not text.isprintable() or "\\" in text:
        return "/"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    return text if not parts.scheme and not parts.netloc and parts.path != LOGIN_PATH else "/"
