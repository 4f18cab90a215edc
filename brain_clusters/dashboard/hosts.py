"""Hosts: the machines that agents run on, and how much room each has."""

from __future__ import annotations

import flask

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.services import placement

routes = screen("hosts")


@routes.get("/hosts")
@endpoint(Role.VIEWER, everywhere=True, page=True)
def listing() -> flask.Response:
    """List the hosts."""
    with control().database.transaction() as session:
        found = placement.hosts(session, control().settings.host_lease_seconds)
    return page("hosts.html", title="Hosts", hosts=found)
