"""What a request leaves for whoever follows it: its ids on each line that is logged meanwhile, and its span."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import flask

from brain_clusters import logs, tracing

# What monitors ask every few seconds.
_NOT_TRACED = {"/healthz", "/readyz", "/version", "/metrics"}


def register(app: flask.Flask) -> None:
    """Follow every request of ``app``."""
    app.url_value_preprocessor(_begin)
    app.after_request(_note_answer)
    app.teardown_request(_end)


def _begin(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    ids = {name: value for name, value in (values or {}).items() if name in logs.IDS}
    flask.g.followed = ExitStack()
    flask.g.followed.enter_context(logs.bound(**ids))
    rule = flask.request.url_rule
    if rule is None or rule.rule in _NOT_TRACED:
        return
    method, parent = flask.request.method, tracing.carried(flask.request.headers.get)
    span = flask.g.followed.enter_context(tracing.span(f"{method} {rule.rule}", "server", parent, **ids))
    if span is not None:
        span.set_attributes({"http.request.method": method, "http.route": rule.rule, **_about(flask.request)})
        flask.g.span = span


def _about(request: flask.Request) -> dict[str, str]:
    """Return what else the semantic conventions ask for. A query is none of it: what is in one may be secret."""
    return {
        "url.path": request.path, "url.scheme": request.scheme, "client.address": request.remote_addr or "",
        "server.address": request.environ.get("SERVER_NAME", ""),
        "user_agent.original": request.headers.get("User-Agent", "")[:200],
    }  # fmt: skip


def _note_answer(response: flask.Response) -> flask.Response:
    span = flask.g.get("span")
    if span is not None:
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= 500:
            tracing.fail(span, response.status)
    return response


def _end(_exc: BaseException | None) -> None:
    found = flask.g.pop("followed", None)
    if found is not None:
        found.close()
