"""Jobs that ended without success, by what went wrong."""

from __future__ import annotations

from typing import Any

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.domain.access import Role
from brain_clusters.domain.durations import in_utc, parse_instant
from brain_clusters.services import dead_letters
from brain_clusters.services.dead_letters import Letters, Treated
from brain_clusters.services.requests import LETTERS, TREAT_LETTERS

routes = flask.Blueprint("dead_letters", __name__, url_prefix="/api")

_OF_CLUSTER = "/clusters/<cluster_id>/dead-letters"


@routes.get("/dead-letters")
@endpoint(Role.VIEWER, query=LETTERS, answers={200: answers.ALL_LETTERS})
def by_error(query: Document) -> flask.Response:
    """Show the dead letters of all clusters by error, most first."""
    found = [views.letter(one) for one in dead_letters.by_error(control(), _letters(query))]
    return answer({"dead_letters": found, "total": sum(one["count"] for one in found)})


@routes.get(_OF_CLUSTER)
@endpoint(Role.VIEWER, query=LETTERS, answers={200: answers.LETTERS})
def grouped(cluster_id: str, query: Document) -> flask.Response:
    """Show a cluster's dead letters by error and group, most first."""
    found = [views.letter(one) for one in dead_letters.grouped(control(), cluster_id, _letters(query))]
    return answer({"dead_letters": found, "total": sum(one["count"] for one in found)})


@routes.post(f"{_OF_CLUSTER}/retry")
@endpoint(Role.OPERATOR, body=TREAT_LETTERS, answers={202: answers.RETRIED})
def retry(cluster_id: str, body: Document) -> flask.Response:
    """Queue the dead letters that match again, the oldest first."""
    letters, limit = _asked(body)
    return treated("retried", dead_letters.retry_matching(control(), cluster_id, letters, limit))


@routes.post(f"{_OF_CLUSTER}/discard")
@endpoint(Role.OPERATOR, body=TREAT_LETTERS, answers={202: answers.DISCARDED})
def discard(cluster_id: str, body: Document) -> flask.Response:
    """Put the dead letters that match aside: nobody is shown them here any more, and their payloads are dropped."""
    letters, limit = _asked(body)
    return treated("discarded", dead_letters.discard_matching(control(), cluster_id, letters, limit))


def _asked(body: Document) -> tuple[Letters, int]:
    limit = body.pop("limit")
    return _letters(body), limit


def _letters(asked: dict[str, Any]) -> Letters:
    since = in_utc(parse_instant(asked["since"])) if "since" in asked else None
    return Letters(asked.get("error_key"), asked.get("group"), since)


def treated(what: str, done: Treated) -> flask.Response:
    """Answer how many dead letters were treated, and how many are left."""
    return answer({what: done.done, "left": done.left, "without_payload": done.kept}, 202)
