"""The list of clusters."""

from __future__ import annotations

import flask

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import ClusterStatus, ClusterType
from brain_clusters.services import blueprints, cluster_table, overview
from brain_clusters.services.cluster_table import SORTS, Wanted
from brain_clusters.services.paging import MOST_PER_PAGE
from brain_clusters.services.requests import Schema

routes = screen("clusters")

_QUERY: Schema = {
    "q": {"type": "string", "maxlength": 200},
    "status": {"type": "string", "allowed": ["", *(str(status) for status in ClusterStatus)]},
    "type": {"type": "string", "allowed": ["", *(str(kind) for kind in ClusterType)]},
    "tag": {"type": "string", "maxlength": 100},
    "blueprint": {"type": "string", "maxlength": 200},
    "sort": {"type": "string", "allowed": list(SORTS), "default": "-created"},
    "page": {"type": "integer", "min": 1, "max": 1_000_000, "default": 1},
}
_NEW: Schema = {"blueprint": {"type": "string", "maxlength": 200}}


@routes.get("/clusters")
@endpoint(Role.VIEWER, query=_QUERY, page=True)
def listing(query: Document) -> flask.Response:
    """List clusters."""
    wanted = Wanted(
        text=query.get("q") or None,
        status=ClusterStatus(query["status"]) if query.get("status") else None,
        type=ClusterType(query["type"]) if query.get("type") else None,
        tag=query.get("tag") or None,
        blueprint=query.get("blueprint") or None,
        sort=query["sort"],
    )
    with control().database.transaction() as session:
        table = cluster_table.table(session, wanted, query["page"])
        statuses = overview.statuses(session)
    return page(
        "clusters.html", title="Clusters", table=table, wanted=wanted, statuses=statuses, types=list(ClusterType),
        narrowed=any((wanted.text, wanted.status, wanted.type, wanted.tag, wanted.blueprint)),
        currency=control().settings.currency,
    )  # fmt: skip


@routes.get("/new-cluster")
@endpoint(Role.OPERATOR, query=_NEW, page=True)
def new(query: Document) -> flask.Response:
    """Ask what a new cluster is to be made from."""
    with control().database.transaction() as session:
        found = blueprints.listing(session, limit=MOST_PER_PAGE, cursor=None).items
    return page(
        "cluster_new.html", title="New cluster", poll=0, blueprints=found, chosen=query.get("blueprint")
    )  # fmt: skip
