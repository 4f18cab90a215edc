"""What monitors ask: is it alive, can it work, what is it."""

from __future__ import annotations

from typing import Any

import flask

from brain_clusters import __version__
from brain_clusters.api import answers
from brain_clusters.api.context import answer, commit, control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.errors import TemporaryError

routes = flask.Blueprint("system", __name__)


@routes.get("/healthz")
@endpoint(None, answers={200: answers.HEALTH}, probe=True)
def healthz() -> flask.Response:
    """Say that the process answers."""
    return answer({"status": "ok"})


@routes.get("/readyz")
@endpoint(None, answers={200: answers.READY, 503: answers.READY}, probe=True)
def readyz() -> flask.Response:
    """Say whether requests can be served. Without Redis they can: commands are stored and delivered later."""
    problems = _database_problems()
    body: dict[str, Any] = {
        "status": "unavailable" if problems else "ready",
        "redis": "up" if _redis_is_up() else "down",
        "problems": problems,
    }
    return answer(body, 503 if problems else 200, {"Retry-After": "2"} if problems else None)


@routes.get("/version")
@endpoint(None, answers={200: answers.VERSION})
def version() -> flask.Response:
    """Say what is running. schema: the revision of the database that this code needs."""
    return answer({"version": __version__, "commit": commit(), "schema": control().database.schema.head})


def _database_problems() -> list[str]:
    try:
        control().database.check_schema()
    except TemporaryError as exc:
        return [str(exc)]
    return []


def _redis_is_up() -> bool:
    try:
        with temporary_when_away():
            control().broker.redis.ping()
    except TemporaryError:
        return False
    return True
