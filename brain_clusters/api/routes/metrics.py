"""What monitors and autoscalers of others read."""

from __future__ import annotations

import flask

from brain_clusters import __version__
from brain_clusters.api import answers
from brain_clusters.api.context import answer, commit, control, monitor
from brain_clusters.api.endpoint import endpoint
from brain_clusters.api.exposition import exposed
from brain_clusters.api.shapes import TEXT, Media
from brain_clusters.domain.access import Role
from brain_clusters.services import clusters

routes = flask.Blueprint("metrics", __name__)


@routes.get("/metrics")
@endpoint(
    Role.VIEWER, everywhere=True, answers={200: Media({"text/plain": TEXT, "application/openmetrics-text": TEXT})}
)
def scrape() -> flask.Response:
    """Tell all figures in Prometheus's text format, or as OpenMetrics."""
    found = monitor().gather()
    found.set("brain_build_info", 1, __version__, commit() or "")
    text, content_type = exposed(found, flask.request.headers.get("Accept", ""))
    return flask.Response(text, content_type=content_type)


@routes.get("/api/clusters/<cluster_id>/groups/<group>/backlog")
@endpoint(Role.VIEWER, answers={200: answers.BACKLOG})
def backlog(cluster_id: str, group: str) -> flask.Response:
    """Tell the jobs of one group that wait or run, for KEDA's metrics-api scaler; 503 when nobody knows."""
    with control().database.transaction() as session:
        row = clusters.get(session, cluster_id)
    found = clusters.group_backlog(control(), row, group)
    return answer({"value": found["waiting"] + found["running"], "cluster_id": cluster_id, "group": group, **found})
