"""Declared states: plan shows what documents would change, apply changes it."""

from __future__ import annotations

from collections.abc import Sequence

import flask
from werkzeug.exceptions import Forbidden

from brain_clusters.api import access_answers
from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import Origin
from brain_clusters.domain.secrecy import without_secrets
from brain_clusters.services import applying, planned
from brain_clusters.services.requests import APPLY, PLAN

routes = flask.Blueprint("applying", __name__, url_prefix="/api")


@routes.post("/plan")
@endpoint(Role.VIEWER, body=PLAN, changes=False, answers={200: access_answers.PLAN})
def plan(body: Document) -> flask.Response:
    """Show what blueprints and cluster files would change: fields, agents and cost per hour. Changes nothing."""
    return answer(without_secrets(planned.plan(control(), body["documents"]).as_dict()))


@routes.post("/apply")
@endpoint(Role.OPERATOR, body=APPLY, answers={200: access_answers.PLAN})
def apply(body: Document) -> flask.Response:
    """Make blueprints and clusters what the documents say, and change only what differs. Blueprints need an admin."""
    _judge(body["documents"])
    origin = Origin("api", "documents were applied")
    done = applying.apply(control(), body["documents"], origin, body.get("fingerprint"))
    return answer(without_secrets(done.as_dict()))


def _judge(documents: Sequence[str]) -> None:
    """Refuse blueprints of whoever may not store them."""
    caller = identity()
    if "blueprint" in planned.kinds_of(list(documents)) and not (caller.role.covers(Role.ADMIN) and caller.sees_all):
        raise Forbidden(f"a blueprint needs the role {Role.ADMIN} for all clusters; cluster files may be applied")
