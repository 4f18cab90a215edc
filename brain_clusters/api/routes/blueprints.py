"""Blueprints: storing, reading and retiring them."""

from __future__ import annotations

from urllib.parse import quote

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control, tagged
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import LONG_PAGE, read_if_match
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import Origin
from brain_clusters.errors import InvalidInput
from brain_clusters.services import applying, blueprints, etags
from brain_clusters.services.requests import BLUEPRINT, NOTHING, STORE, Schema

routes = flask.Blueprint("blueprints", __name__, url_prefix="/api/blueprints")

_STORED = dict.fromkeys((200, 201), answers.WHOLE_BLUEPRINT)
_VERSION: Schema = {"version": {"type": "string", "minlength": 1, "maxlength": 100}}


@routes.post("")
@endpoint(Role.ADMIN, body=STORE, everywhere=True, answers=_STORED, headers=("If-Match",))
def add(body: Document) -> flask.Response:
    """Store a blueprint, or a new version of one; with ``rollout`` its clusters get it, too."""
    return _store(None, body)


@routes.post("/validate")
@endpoint(Role.VIEWER, body=BLUEPRINT, changes=False, answers={200: answers.VALIDATED})
def validate(body: Document) -> flask.Response:
    """Judge the text of a blueprint, and tell every fault with its line and column. Changes nothing."""
    try:
        found = parse_blueprint(body["yaml"])
    except InvalidInput as exc:
        faults = [fault.as_dict() for fault in exc.faults]
        return answer({"valid": False, "id": None, "name": None, "version": None, "errors": faults})
    return answer({"valid": True, "id": found.id, "name": found.name, "version": found.version, "errors": []})


@routes.get("")
@endpoint(Role.VIEWER, query=LONG_PAGE, answers={200: answers.BLUEPRINTS})
def listing(query: Document) -> flask.Response:
    """List blueprints by id, each in its newest version."""
    with control().database.transaction() as session:
        page = blueprints.listing(session, limit=query["limit"], cursor=query.get("cursor"))
    return page_of("blueprints", page, views.blueprint)


@routes.get("/<blueprint_id>")
@endpoint(Role.VIEWER, query=_VERSION, answers={200: answers.WHOLE_BLUEPRINT}, headers=("If-None-Match",))
def get(blueprint_id: str, query: Document) -> flask.Response:
    """Show a blueprint with its text, in its newest version or the one that is asked for."""
    with control().database.transaction() as session:
        versions = blueprints.versions(session, blueprint_id)
        wanted = blueprints.stored(session, blueprint_id, query.get("version"))
    return answer(views.whole_blueprint(wanted, versions), headers=tagged(etags.of_blueprint(versions)))


@routes.put("/<blueprint_id>")
@endpoint(Role.ADMIN, body=STORE, everywhere=True, answers=_STORED, headers=("If-Match",))
def put(blueprint_id: str, body: Document) -> flask.Response:
    """Store a version of the blueprint that the path names."""
    return _store(blueprint_id, body)


@routes.delete("/<blueprint_id>")
@endpoint(Role.ADMIN, body=NOTHING, everywhere=True, answers={204: None}, headers=("If-Match",))
def delete(blueprint_id: str) -> flask.Response:
    """Take a blueprint out of use."""
    blueprints.retire(control(), blueprint_id, seen=read_if_match())
    return flask.Response(status=204)


def _store(expected_id: str | None, body: Document) -> flask.Response:
    stored, new = blueprints.store(control(), body["yaml"], expected_id=expected_id, seen=read_if_match())
    with control().database.transaction() as session:
        versions = blueprints.versions(session, stored.id)
    shown = views.whole_blueprint(stored, versions)
    if body["rollout"]:
        going = applying.of_stored(control(), stored.id, stored.version)
        applying.roll_out(control(), going, Origin("api", "a version was stored and is rolled out"))
        shown["clusters"] = [move.as_dict() for move in going]
    headers = {"Location": f"/api/blueprints/{quote(stored.id, safe='')}", **tagged(etags.of_blueprint(versions))}
    return answer(shown, 201 if new else 200, headers)
