"""The overview: what needs attention, what happened, and what it costs."""

from __future__ import annotations

import flask

from brain_clusters.api.auth import identity
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.services import feed
from brain_clusters.services import overview as service
from brain_clusters.services.feed import EventFilter

routes = screen("overview")

_EVENTS = 20


@routes.get("/")
@endpoint(Role.VIEWER, page=True)
def show() -> flask.Response:
    """Show how everything is doing."""
    found = service.overview(control(), hosts=identity().sees_all)
    with control().database.transaction() as session:
        events, _ = feed.listing(session, EventFilter(), limit=_EVENTS, cursor=None)
    return page(
        "overview.html", title="Overview", found=found, today=found.today.as_dict(), events=events.items,
        currency=control().settings.currency,
    )  # fmt: skip
