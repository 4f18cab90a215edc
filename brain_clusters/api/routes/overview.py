"""How all clusters are doing, in one look."""

from __future__ import annotations

import flask

from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.domain.access import Role
from brain_clusters.services import overview

routes = flask.Blueprint("overview", __name__, url_prefix="/api/overview")


@routes.get("")
@endpoint(Role.VIEWER)
def show() -> flask.Response:
    """Tell how many clusters, agents and jobs there are, what today cost, and what needs attention."""
    found = overview.overview(control(), hosts=identity().sees_all)
    return answer({**found.as_dict(), "currency": control().settings.currency})
