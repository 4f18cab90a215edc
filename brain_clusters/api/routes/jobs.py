"""Jobs: sent, read, retried and cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control, place_for_large_body
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import BATCH_LIMIT_BYTES, BODY_LIMIT_BYTES, PAGE, read_body, read_key
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.api.routes.dead_letters import treated
from brain_clusters.domain.access import Role
from brain_clusters.domain.durations import in_utc, parse_duration, parse_instant
from brain_clusters.domain.states import JobStatus
from brain_clusters.errors import Fault, InvalidInput
from brain_clusters.services import bulk, cancelling, clusters, dead_letters, idempotency, jobs, routing, tree_views
from brain_clusters.services.idempotency import Sent
from brain_clusters.services.job_requests import CANCEL_ANYWHERE, OF_CLUSTER, STATUSES, TREAT_ANYWHERE
from brain_clusters.services.jobs import Filters
from brain_clusters.services.newjobs import NewJob
from brain_clusters.services.requests import (
    CANCEL,
    CANCEL_MANY,
    JOB,
    JOB_FILTERS,
    NOTHING,
    ROUTED_JOB,
    Schema,
    validated,
    validated_jobs,
)

routes = flask.Blueprint("jobs", __name__, url_prefix="/api")

_FILTERS: Schema = {**PAGE, **JOB_FILTERS, "status": STATUSES}

_KEYED = ("Idempotency-Key",)
_TREE: Schema = {
    "root": {"type": "boolean", "meta": {"description": "Show the whole tree that the job belongs to."}},
}


@routes.post("/clusters/<cluster_id>/jobs")
@endpoint(Role.OPERATOR, reads=(JOB, [JOB]), answers={202: answers.ADDED}, headers=_KEYED)
def add(cluster_id: str) -> flask.Response:
    """Accept a job, or a list of them, each for a group, for a capability, or for the supervisor."""
    size = flask.request.content_length
    with place_for_large_body() if size is None or size > BODY_LIMIT_BYTES else nullcontext():
        body = read_body(BATCH_LIMIT_BYTES)
        if isinstance(body, list):
            return _add_list(cluster_id, body)
        new = NewJob(**validated(body, JOB, "the job"))
        return _added(idempotency.add_jobs(control(), cluster_id, [new], read_key(body)))


def _add_list(cluster_id: str, body: list[Any]) -> flask.Response:
    news = [NewJob(**document) for document in validated_jobs(body)]
    sent = idempotency.add_jobs(control(), cluster_id, news, read_key(body), listed=True)
    if sent.submission is None:
        return answer({"jobs": [{"id": one} for one in sent.ids], "accepted": 0}, 202, {"Idempotency-Replayed": "true"})
    told = [{"id": one.id, "replayed": True} if one.replayed else {"id": one.id} for one in sent.submission.jobs]
    return answer({"jobs": told, "accepted": len(sent.submission.new)}, 202)


@routes.post("/jobs")
@endpoint(Role.OPERATOR, reads=ROUTED_JOB, answers={202: answers.ROUTED}, headers=_KEYED)
def add_anywhere() -> flask.Response:
    """Accept a job for the cluster that offers the capability and is expected to begin it first."""
    body = read_body()
    new = NewJob(**validated(body, ROUTED_JOB, "the job"))
    sent, found = routing.add_job(control(), new, read_key(body))
    return _added(sent, {"routing": views.route(found)})


def _added(sent: Sent, members: Mapping[str, Any] | None = None) -> flask.Response:
    """Answer with the one job of a request."""
    [job_id] = sent.ids
    headers = {"Location": f"/api/jobs/{job_id}"}
    if sent.submission is not None and not sent.submission.jobs[0].replayed:
        job = sent.submission.jobs[0].as_row()
    else:
        job = jobs.get(control(), job_id)
        headers["Idempotency-Replayed"] = "true"
    return answer({"job": views.job(job), **(members or {})}, 202, headers)


@routes.get("/clusters/<cluster_id>/jobs")
@endpoint(Role.VIEWER, query=_FILTERS, answers={200: answers.JOBS})
def listing(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's jobs, newest first."""
    _known(cluster_id)
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    page = jobs.listing(control(), cluster_id, _filters(query), limit=limit, cursor=cursor)
    return page_of("jobs", page, views.job)


@routes.get("/jobs")
@endpoint(Role.VIEWER, query={**_FILTERS, **OF_CLUSTER}, answers={200: answers.JOBS})
def listing_all(query: Document) -> flask.Response:
    """List the jobs of all clusters, newest first; the total counts up to 100,000."""
    limit, cursor, cluster_id = query.pop("limit"), query.pop("cursor", None), query.pop("cluster_id", None)
    page = jobs.listing(control(), cluster_id, _filters(query), limit=limit, cursor=cursor)
    return page_of("jobs", page, views.job)


def _known(cluster_id: str) -> None:
    with control().database.transaction() as session:
        clusters.get(session, cluster_id)


def _filters(query: dict[str, Any]) -> Filters:
    """Return filters; raise InvalidInput for what is no status. Several are given with commas in between."""
    statuses = [word for word in query.pop("status", "").split(",") if word]
    unknown = [word for word in statuses if word not in list(JobStatus)]
    if unknown:
        known = ", ".join(JobStatus)
        raise InvalidInput("the filters are not valid", [Fault("/status", f"{unknown[0]!r} is no status; use {known}")])
    for name in ("since", "until"):
        if name in query:
            query[name] = in_utc(parse_instant(query[name]))
    return Filters(statuses=tuple(JobStatus(word) for word in statuses), **query)


@routes.get("/jobs/<job_id>")
@endpoint(Role.VIEWER, answers={200: answers.WHOLE_JOB})
def get(job_id: str) -> flask.Response:
    """Show a job as it stands now."""
    job = jobs.get(control(), job_id)
    return answer(views.whole_job(job, jobs.progress(control(), job)))


@routes.get("/jobs/<job_id>/tree")
@endpoint(Role.VIEWER, query=_TREE, answers={200: answers.TREE})
def tree(job_id: str, query: Document) -> flask.Response:
    """Show what a job handed down, and what that handed down, as it stands now."""
    return answer(views.tree(tree_views.show(control(), job_id, from_root=query.get("root", False))))


@routes.post("/jobs/<job_id>/retry")
@endpoint(Role.OPERATOR, body=NOTHING, answers={202: answers.ONE_JOB})
def retry(job_id: str) -> flask.Response:
    """Queue a job again that failed, is dead or was cancelled."""
    return answer({"job": views.job(dead_letters.retry(control(), job_id))}, 202)


@routes.post("/jobs/<job_id>/cancel")
@endpoint(Role.OPERATOR, body=CANCEL, answers={202: answers.ONE_JOB})
def cancel(job_id: str, body: Document) -> flask.Response:
    """Cancel a job: at once while it waits; one that runs is asked to end, and ended after its grace."""
    return answer({"job": views.job(cancelling.cancel(control(), job_id, _grace(body)))}, 202)


@routes.post("/clusters/<cluster_id>/jobs/cancel")
@endpoint(Role.OPERATOR, body=CANCEL_MANY, answers={202: answers.CANCELLED})
def cancel_many(cluster_id: str, body: Document) -> flask.Response:
    """Cancel the unfinished jobs of a cluster that match."""
    _known(cluster_id)
    grace = _grace(body)
    done = cancelling.cancel_matching(control(), cluster_id, _filters(body), grace)
    return answer({"cancelled": done.cancelled, "cancelling": done.cancelling, "more": done.more}, 202)


# --- of all clusters --------------------------------------------------------------------------------------------


@routes.post("/jobs/cancel")
@endpoint(Role.OPERATOR, body=CANCEL_ANYWHERE, answers={202: answers.CANCELLED})
def cancel_anywhere(body: Document) -> flask.Response:
    """Cancel the unfinished jobs that match, of all clusters or of one."""
    grace, cluster_id = _grace(body), body.pop("cluster_id", None)
    done = cancelling.cancel_matching(control(), cluster_id, _filters(body), grace)
    return answer({"cancelled": done.cancelled, "cancelling": done.cancelling, "more": done.more}, 202)


@routes.post("/jobs/retry")
@endpoint(Role.OPERATOR, body=TREAT_ANYWHERE, answers={202: answers.RETRIED})
def retry_anywhere(body: Document) -> flask.Response:
    """Queue the dead letters that match again, of all clusters or of one, the oldest first."""
    limit, cluster_id = body.pop("limit"), body.pop("cluster_id", None)
    done = bulk.retry(control(), cluster_id, _filters(body), limit)
    return treated("retried", done)


@routes.post("/jobs/discard")
@endpoint(Role.OPERATOR, body=TREAT_ANYWHERE, answers={202: answers.DISCARDED})
def discard_anywhere(body: Document) -> flask.Response:
    """Put the dead letters that match aside, of all clusters or of one, and drop their payloads."""
    limit, cluster_id = body.pop("limit"), body.pop("cluster_id", None)
    done = bulk.discard(control(), cluster_id, _filters(body), limit)
    return treated("discarded", done)


def _grace(body: dict[str, Any]) -> float:
    return parse_duration(body.pop("grace", cancelling.DEFAULT_GRACE_SECONDS))
