"""Jobs."""

from __future__ import annotations

import flask

from brain_clusters.api import views
from brain_clusters.api.context import answer, control
from brain_clusters.api.requests import PAGE, read_body, read_key, read_query
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import idempotency, jobs
from brain_clusters.services.requests import JOB, Schema, validated

routes = flask.Blueprint("jobs", __name__, url_prefix="/api")

_FILTERS: Schema = {
    **PAGE,
    "status": {"type": "string", "allowed": [str(status) for status in JobStatus]},
    "group": {"type": "string", "minlength": 1, "maxlength": 200},
}


@routes.post("/clusters/<cluster_id>/jobs")
def add(cluster_id: str) -> flask.Response:
    """Accept a job for a group, for a capability, or for the supervisor."""
    read_query({})
    body = read_body()
    new = jobs.NewJob(**validated(body, JOB, "the job"))
    job, repeated = idempotency.add_job(control(), cluster_id, new, read_key(body))
    headers = {"Location": f"/api/jobs/{job.id}"}
    if repeated:
        headers["Idempotency-Replayed"] = "true"
    return answer({"job": views.job(job)}, 202, headers)


@routes.get("/clusters/<cluster_id>/jobs")
def listing(cluster_id: str) -> flask.Response:
    """List a cluster's jobs, newest first."""
    query = read_query(_FILTERS)
    page = jobs.listing(
        control(),
        cluster_id,
        status=JobStatus(query["status"]) if "status" in query else None,
        group=query.get("group"),
        limit=query["limit"],
        cursor=query.get("cursor"),
    )
    return page_of("jobs", page, views.job)


@routes.get("/jobs/<job_id>")
def get(job_id: str) -> flask.Response:
    """Show a job as it stands now."""
    read_query({})
    return answer(views.whole_job(jobs.get(control(), job_id)))
