"""What the API says of itself: the OpenAPI document, and pages to read it and try it, from files of ours."""

from __future__ import annotations

from pathlib import Path

import flask

from brain_clusters.api import openapi
from brain_clusters.api.context import answer
from brain_clusters.api.endpoint import endpoint
from brain_clusters.api.shapes import OBJECT, TEXT, Media
from brain_clusters.errors import NotFound

routes = flask.Blueprint("documents", __name__, url_prefix="/api")

_FILES = Path(__file__).parents[1] / "docs_files"
_KINDS = {".js": "text/javascript", ".css": "text/css"}
_SERVED = ("docs.js", "swagger-ui-bundle.js", "swagger-ui.css")


@routes.get("/openapi.json")
@endpoint(None, answers={200: OBJECT})
def document() -> flask.Response:
    """Tell all routes, what they read and what they answer, as OpenAPI 3.1. It tells nothing of what is stored."""
    return answer(openapi.document(flask.current_app))


@routes.get("/docs")
@endpoint(None, answers={200: Media({"text/html": TEXT})})
def page() -> flask.Response:
    """Show the document to people, who may try it with a key."""
    return flask.Response((_FILES / "docs.html").read_text(), mimetype="text/html")


@routes.get("/docs/<name>")
@endpoint(None, answers={200: Media({"text/javascript": TEXT, "text/css": TEXT})})
def file(name: str) -> flask.Response:
    """Send a file of the page."""
    if name not in _SERVED:
        raise NotFound(f"the page has no file {name!r}")
    found = _FILES / name
    return flask.Response(found.read_bytes(), mimetype=_KINDS[found.suffix])
