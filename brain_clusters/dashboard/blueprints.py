"""Blueprints: which there are, the text and the versions of one, and an editor that judges as one types."""

from __future__ import annotations

import flask

from brain_clusters.api import views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard import cluster_shape
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.services import blueprints
from brain_clusters.services.requests import Schema

routes = screen("blueprints")

_VERSION = {"type": "string", "maxlength": 200}
_CURSOR: Schema = {"cursor": {"type": "string", "minlength": 1, "maxlength": 1000}}
_MANY = 50
_FIRST = """\
metadata:
  id: my-team
  name: My team
  version: "1.0"
  description: What it is for
cluster:
  type: project
  min_workers: 1
  max_workers: 6
agents:
  - {role: supervisor, name: Lead, count: 1}
  - {role: worker, name: Workers, count: 0-5, reports_to: Lead, capabilities: [anything]}
"""


@routes.get("/blueprints")
@endpoint(Role.VIEWER, query=_CURSOR, page=True)
def listing(query: Document) -> flask.Response:
    """List blueprints, each in its newest version."""
    with control().database.transaction() as session:
        found = blueprints.listing(session, limit=_MANY, cursor=query.get("cursor"))
        counts = blueprints.version_counts(session, [row.id for row in found.items])
    rows = [(views.blueprint(row), counts.get(row.id, 1)) for row in found.items]
    return page("blueprints.html", title="Blueprints", found=found, rows=rows, poll=15)


@routes.get("/blueprints/<blueprint_id>")
@endpoint(Role.VIEWER, query={"version": _VERSION, "against": _VERSION}, page=True)
def show(blueprint_id: str, query: Document) -> flask.Response:
    """Show the text of a blueprint, its versions, and how two of them differ."""
    against = query.get("against") or None
    with control().database.transaction() as session:
        versions = blueprints.versions(session, blueprint_id)
        row = blueprints.stored(session, blueprint_id, query.get("version") or None)
        lines = cluster_shape.difference(session, blueprint_id, against, row.version) if against else None
        agents = blueprints.parsed(session, blueprint_id, row.version)
    return page(
        "blueprint.html", title=row.name, told=views.blueprint(row), text=row.blueprint_yaml, versions=versions,
        against=against, lines=lines, parsed=agents, poll=15,
    )  # fmt: skip


@routes.get("/new-blueprint")
@endpoint(Role.ADMIN, query={"of": _VERSION, "version": _VERSION}, everywhere=True, page=True)
def edit(query: Document) -> flask.Response:
    """Write a blueprint, or a new version of one."""
    found, text = None, _FIRST
    if query.get("of"):
        with control().database.transaction() as session:
            found = blueprints.stored(session, query["of"], query.get("version") or None)
            text = found.blueprint_yaml
    title = f"New version of {found.name}" if found else "New blueprint"
    return page("blueprint_edit.html", title=title, text=text, source=found, poll=0)
