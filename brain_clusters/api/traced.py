"""A span for each request, by the semantic conventions of HTTP; it goes on the trace that the caller names."""

from __future__ import annotations

from contextlib import ExitStack

import flask

from brain_clusters import tracing
from brain_clusters.api.endpoint import declared

# What a caller writes is theirs to choose, but not how long it is.
_MOST_TEXT = 200


def register(app: flask.Flask) -> None:
    """Have the requests of ``app`` traced, where this process traces. Register it before what may refuse a request."""
    if tracing.is_on():
        app.before_request(_begin)
        app.after_request(_tell)
        app.teardown_request(_end)


def _begin() -> None:
    request = flask.request
    found = declared(flask.current_app.view_functions.get(request.endpoint)) if request.endpoint else None
    if found is not None and found.probe:
        return  # asked every few seconds, and of no interest
    route = request.url_rule.rule if request.url_rule is not None else None
    attributes: dict[str, str | int] = {
        "http.request.method": request.method, "url.path": request.path, "url.scheme": request.scheme,
        "server.address": request.environ.get("SERVER_NAME", ""), "client.address": request.remote_addr or "",
        "user_agent.original": request.headers.get("User-Agent", "")[:_MOST_TEXT],
    }  # fmt: skip
    if route is not None:
        attributes["http.route"] = route
    name = request.method if route is None else f"{request.method} {route}"
    flask.g.span = ExitStack()
    flask.g.span.enter_context(tracing.span(name, "server", attributes, parent=request.headers.get("traceparent")))


def _tell(response: flask.Response) -> flask.Response:
    if "span" in flask.g:
        failed = str(response.status_code) if response.status_code >= 500 else None
        tracing.tell({"http.response.status_code": response.status_code}, error=failed)
    return response


def _end(_exc: BaseException | None) -> None:
    found = flask.g.pop("span", None)
    if found is not None:
        found.close()
