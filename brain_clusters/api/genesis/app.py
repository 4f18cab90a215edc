"""The Flask application of the Genesis service."""

from __future__ import annotations

import flask

from brain_clusters import __version__
from brain_clusters.api import auth, origin, problems
from brain_clusters.api.context import answer
from brain_clusters.api.genesis import dialect, native
from brain_clusters.api.genesis.attached import Attached, attach, attached
from brain_clusters.api.requests import BODY_LIMIT_BYTES
from brain_clusters.errors import PermanentError

_KEYS = "BRAIN_GENESIS_KEY"


def create_app(collaborators: Attached) -> flask.Flask:
    """Return the application on ``collaborators``, which stay the caller's to close."""
    app = flask.Flask("brain_clusters.api.genesis", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT_BYTES + 1  # see api.app
    app.url_map.merge_slashes = False
    attach(app, collaborators)
    app.before_request(_check)
    problems.register(app)
    app.register_error_handler(PermanentError, _engine_fault)
    app.register_blueprint(native.routes)
    app.register_blueprint(dialect.routes)
    app.add_url_rule("/healthz", view_func=healthz)
    return app


def healthz() -> flask.Response:
    """Say that the service answers."""
    return answer({"status": "ok", "driver": attached().driver, "version": __version__})


def _check() -> None:
    if flask.request.path == "/healthz":
        return
    keys = attached().keys
    if keys:
        auth.check_key(keys, _KEYS)
    else:
        origin.check_local(_KEYS)


def _engine_fault(exc: PermanentError) -> flask.Response:
    """Tell what is wrong with the engine: whoever has the key runs agents here, and has to know."""
    return problems.problem(500, "urn:brain:problem:engine", "The engine cannot do this", str(exc))
