"""Reading hosts: what each has, and how much of it is in use."""

from __future__ import annotations

import flask

from brain_clusters.api import answers
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.domain.access import Role
from brain_clusters.services import placement

routes = flask.Blueprint("hosts", __name__, url_prefix="/api/hosts")


@routes.get("")
@endpoint(Role.VIEWER, everywhere=True, answers={200: answers.HOSTS})
def listing() -> flask.Response:
    """List the hosts, by driver and id. They are few, so there are no pages."""
    with control().database.transaction() as session:
        found = placement.hosts(session, control().settings.host_lease_seconds)
    return answer({"hosts": found, "total": len(found)})
