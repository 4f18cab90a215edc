"""Keys: made, listed, renewed and revoked by admins. A key's text is in one answer only: that which made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import flask

from brain_clusters.api import access_answers, auth, views
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.domain.access import Role
from brain_clusters.domain.durations import parse_duration, parse_end
from brain_clusters.errors import Fault, InvalidInput
from brain_clusters.services import access, keys
from brain_clusters.services.access import NewKey
from brain_clusters.services.access_requests import KEY, ROTATE_KEY
from brain_clusters.services.requests import NOTHING, Schema

routes = flask.Blueprint("keys", __name__, url_prefix="/api/keys")

_FILTERS: Schema = {"ended": {"type": "boolean", "default": False}}
_LONGEST_OVERLAP_SECONDS = 90 * 86_400


@routes.get("")
@endpoint(Role.ADMIN, query=_FILTERS, answers={200: access_answers.KEYS})
def listing(query: Document) -> flask.Response:
    """List the keys that one manages, the newest first; revoked and expired ones, too, with ``ended=true``."""
    caller = auth.identity()
    with control().database.transaction() as session:
        found, total = keys.listing(session, caller, ended=query["ended"])
    fixed = access.fixed(control().settings) if caller.sees_all else []
    rows = [views.fixed_key(one) for one in fixed] + [views.key(row, datetime.now(UTC)) for row in found]
    return answer({"keys": rows, "total": total + len(fixed)})


@routes.post("")
@endpoint(Role.ADMIN, body=KEY, answers={201: access_answers.NEW_KEY})
def create(body: Document) -> flask.Response:
    """Make a key. Its text is shown this once."""
    new = NewKey(
        name=body["name"], role=Role(body["role"]), payloads=body["payloads"], tags=tuple(body["tags"]),
        expires_at=_end(body),
    )  # fmt: skip
    with control().database.transaction() as session:
        row, shown = keys.create(session, auth.identity(), new)
        told = views.key(row, datetime.now(UTC))
    return answer({"key": told, "secret": shown}, 201, {"Location": f"/api/keys/{row.id}"})


@routes.delete("/<key_id>")
@endpoint(Role.ADMIN, body=NOTHING, answers={200: access_answers.ONE_KEY})
def revoke(key_id: str) -> flask.Response:
    """End a key for good, and with it the sessions that were opened with it."""
    with control().database.transaction() as session:
        row = keys.revoke(session, auth.identity(), key_id)
        session.flush()
        return answer({"key": views.key(row, datetime.now(UTC))})


@routes.post("/<key_id>/rotate")
@endpoint(Role.ADMIN, body=ROTATE_KEY, answers={201: access_answers.ROTATED})
def rotate(key_id: str, body: Document) -> flask.Response:
    """Make a key in place of another, which goes on for ``overlap``. Its text is shown this once."""
    overlap = parse_duration(body["overlap"])
    if overlap > _LONGEST_OVERLAP_SECONDS:
        raise InvalidInput("the request body is not valid", [Fault("/overlap", "must be at most 90 days")])
    with control().database.transaction() as session:
        given = session, auth.identity(), key_id, timedelta(seconds=overlap)
        old, row, shown = keys.rotate(*given, _end(body))
        session.flush()
        now = datetime.now(UTC)
        told = {"key": views.key(row, now), "replaces": views.key(old, now)}
    return answer({**told, "secret": shown}, 201, {"Location": f"/api/keys/{row.id}"})


def _end(body: Document) -> datetime | None:
    now = datetime.now(UTC)
    end = parse_end(body["expires"], now) if "expires" in body else None
    if end is not None and not now < end <= now + timedelta(days=3660):
        raise InvalidInput("the request body is not valid", [Fault("/expires", "must be ahead, and within 10 years")])
    return end
