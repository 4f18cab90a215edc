"""Reading clusters and what belongs to them. What changes them is in ``lifecycle``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control, tagged
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import LONG_PAGE, PAGE
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import ClusterStatus, ClusterType
from brain_clusters.services import alerts, clusters, etags, rollouts, standby
from brain_clusters.services.clusters import ClusterFilter
from brain_clusters.services.paging import Page
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("clusters", __name__, url_prefix="/api/clusters")

Row = TypeVar("Row")

_FILTERS: Schema = {
    **PAGE,
    "status": {"type": "string", "allowed": [str(status) for status in ClusterStatus]},
    "type": {"type": "string", "allowed": [str(kind) for kind in ClusterType]},
    "tag": {"type": "string", "minlength": 1, "maxlength": 100},
    "name": {"type": "string", "minlength": 1, "maxlength": 200},
}
_AGENT_FILTERS: Schema = {**LONG_PAGE, "ended": {"type": "boolean", "default": False}}


def page_of(name: str, page: Page[Row], view: Callable[[Row], dict[str, Any]]) -> flask.Response:
    """Return a page as the answer that every paged list gives."""
    rows = [view(row) for row in page.items]
    return answer({name: rows, "total": page.total, "next_cursor": page.next_cursor})


@routes.get("")
@endpoint(Role.VIEWER, query=_FILTERS, answers={200: answers.CLUSTERS})
def listing(query: Document) -> flask.Response:
    """List clusters, newest first."""
    wanted = ClusterFilter(
        status=ClusterStatus(query["status"]) if "status" in query else None,
        type=ClusterType(query["type"]) if "type" in query else None,
        tag=query.get("tag"),
        name=query.get("name"),
    )
    with control().database.transaction() as session:
        page = clusters.listing(session, wanted, limit=query["limit"], cursor=query.get("cursor"))
    return page_of("clusters", page, views.cluster)


@routes.get("/<cluster_id>")
@endpoint(Role.VIEWER, answers={200: answers.WHOLE_CLUSTER}, headers=("If-None-Match",))
def get(cluster_id: str) -> flask.Response:
    """Show a cluster, the jobs that wait and run in it this moment (null when Redis cannot be asked), and the rollout
    that is under way.
    """
    with control().database.transaction() as session:
        row = clusters.get(session, cluster_id)
        rolling = rollouts.under_way_of(session, [cluster_id]).get(cluster_id)
    shown: Document = {"backlog": clusters.backlog_now(control(), row), "standby": standby.of(control(), row)}
    shown["rollout"] = None if rolling is None else views.rollout(rolling)
    return answer({**views.cluster(row), **shown}, headers=tagged(etags.of_cluster(row)))


@routes.get("/<cluster_id>/agents")
@endpoint(Role.VIEWER, query=_AGENT_FILTERS, answers={200: answers.AGENTS})
def agents(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's agents in the order they were started; those that are gone, too, with ``ended=true``."""
    ended, limit, cursor = query["ended"], query["limit"], query.get("cursor")
    with control().database.transaction() as session:
        page = clusters.agents_page(session, cluster_id, ended=ended, limit=limit, cursor=cursor)
    beats = clusters.beats(control(), [row.agent_id for row in page.items])
    return page_of("agents", page, lambda row: views.agent(row, beats))


@routes.get("/<cluster_id>/hierarchy")
@endpoint(Role.VIEWER, answers={200: answers.HIERARCHY})
def hierarchy(cluster_id: str) -> flask.Response:
    """Show who reports to whom."""
    with control().database.transaction() as session:
        return answer({"cluster_id": cluster_id, "hierarchy": clusters.hierarchy(session, cluster_id)})


@routes.get("/<cluster_id>/metrics")
@endpoint(Role.VIEWER, query=PAGE, answers={200: answers.METRICS})
def metrics(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's samples, newest first."""
    with control().database.transaction() as session:
        page = clusters.metrics(session, cluster_id, limit=query["limit"], cursor=query.get("cursor"))
    return page_of("metrics", page, views.metrics)


@routes.get("/<cluster_id>/events")
@endpoint(Role.VIEWER, query=PAGE, answers={200: answers.EVENTS})
def events(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's history, newest first."""
    with control().database.transaction() as session:
        page = clusters.events(session, cluster_id, limit=query["limit"], cursor=query.get("cursor"))
    return page_of("events", page, views.event)


@routes.get("/<cluster_id>/alerts")
@endpoint(Role.VIEWER, answers={200: answers.ALERTS})
def alerts_of(cluster_id: str) -> flask.Response:
    """List the alerts of a cluster's blueprint and where each stands."""
    with control().database.transaction() as session:
        rows = [views.alert(rule, state) for rule, state in alerts.listing(session, cluster_id)]
    return answer({"alerts": rows, "total": len(rows)})
