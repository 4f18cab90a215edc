"""Keys, which admins make, renew and revoke, and sessions, of which everybody ends the own ones."""

from __future__ import annotations

from datetime import UTC, datetime

import flask

from brain_clusters.api import auth, views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.services import access, keys, sessions

routes = screen("keys")


@routes.get("/keys")
@endpoint(Role.ADMIN, query={"ended": {"type": "boolean", "default": False}}, page=True)
def listing(query: Document) -> flask.Response:
    """List the keys that one manages."""
    caller, now = auth.identity(), datetime.now(UTC)
    with control().database.transaction() as session:
        found, _ = keys.listing(session, caller, ended=query["ended"])
    fixed = access.fixed(control().settings) if caller.sees_all else []
    rows = [views.fixed_key(one) for one in fixed] + [views.key(row, now) for row in found]
    return page(
        "keys.html", title="Keys", keys=rows, ended=query["ended"], roles=list(Role), most=keys.MOST_SHOWN, poll=15
    )


@routes.get("/sessions")
@endpoint(Role.VIEWER, page=True)
def signed_in() -> flask.Response:
    """List who is signed in: with one's own key, and for an admin with the keys that it manages."""
    here = auth.signed_in()
    with control().database.transaction() as session:
        found = sessions.listing(session, control().settings, auth.identity())
    return page("sessions.html", title="Sessions", sessions=found, current=here and here.id, poll=15)
