"""The history of all clusters: in pages, and as it happens."""

from __future__ import annotations

from datetime import datetime

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control, hub
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import PAGE
from brain_clusters.api.shapes import TEXT, Media
from brain_clusters.api.streaming import frames
from brain_clusters.api.streaming.frames import Frame
from brain_clusters.api.streaming.takeover import stream
from brain_clusters.domain.access import Role
from brain_clusters.domain.durations import in_utc, parse_instant
from brain_clusters.services import feed
from brain_clusters.services.feed import EventFilter
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("events", __name__, url_prefix="/api/events")

_CHOICE: Schema = {
    "cluster_id": {"type": "string", "minlength": 1, "maxlength": 100},
    "kind": {"type": "string", "minlength": 1, "maxlength": 100},
}
_FILTERS: Schema = {**PAGE, **_CHOICE, "since": {"type": "string", "check_with": "instant", "maxlength": 100}}
_STREAM: Schema = {**_CHOICE, "last_event_id": {"type": "string", "minlength": 1, "maxlength": 100}}


@routes.get("")
@endpoint(Role.VIEWER, query=_FILTERS, answers={200: answers.ALL_EVENTS})
def listing(query: Document) -> flask.Response:
    """List events of all clusters, newest first. position: where a stream begins that misses none after them."""
    since: datetime | None = in_utc(parse_instant(query["since"])) if "since" in query else None
    wanted = EventFilter(cluster_id=query.get("cluster_id"), kind=query.get("kind"), since=since)
    with control().database.transaction() as session:
        page, position = feed.listing(session, wanted, limit=query["limit"], cursor=query.get("cursor"))
    rows = [views.event(row) for row in page.items]
    shown = {"events": rows, "total": page.total, "next_cursor": page.next_cursor, "position": str(position)}
    return answer(shown)


@routes.get("/stream")
@endpoint(Role.VIEWER, query=_STREAM, answers={200: Media({"text/event-stream": TEXT})}, headers=["Last-Event-ID"])
def listen(query: Document) -> flask.Response:
    """Send events as they happen (Server-Sent Events), from now on or after the place that Last-Event-ID names."""
    told = flask.request.headers.get("Last-Event-ID") or query.get("last_event_id")
    with control().database.transaction() as session:
        begin = feed.start(session, told)
    if flask.request.method == "HEAD":
        return flask.Response(mimetype="text/event-stream")
    listener = hub().open(identity(), begin.position, _chosen(query.get("cluster_id"), query.get("kind")))
    return stream(listener, frames.hello(begin.position) + (frames.reset(begin.position) if begin.lost else b""))


def _chosen(cluster_id: str | None, kind: str | None) -> frames.Choice:
    def wants(frame: Frame) -> bool:
        return cluster_id in (None, frame.cluster_id) and kind in (None, frame.kind)

    return wants
