"""Jobs of all clusters and of one: searched, filtered, treated in bulk; one job; and dead letters by their error."""

from __future__ import annotations

from typing import Any

import flask

from brain_clusters.api import views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.job_shape import SINCE, Asked, facts
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, FINISHED_JOB_STATUSES, JobStatus
from brain_clusters.errors import NotFound
from brain_clusters.services import bulk, clusters, dead_letters, jobs, tree_views
from brain_clusters.services.dead_letters import Letters
from brain_clusters.services.requests import Schema

routes = screen("jobs")

_WORD = {"type": "string", "maxlength": 200}
_QUERY: Schema = {
    "q": _WORD, "status": _WORD, "cluster": _WORD, "group": _WORD, "capability": _WORD, "error": _WORD,
    "since": {"type": "string", "allowed": ["", *SINCE]},
    "cursor": {"type": "string", "minlength": 1, "maxlength": 1000},
}  # fmt: skip
_MANY = 50
_CHIPS = (
    ("", "All"), ("queued,running", "Unfinished"), ("succeeded", "Succeeded"), ("failed,dead", "Dead letters"),
    ("cancelled", "Cancelled"),
)  # fmt: skip


@routes.get("/jobs")
@endpoint(Role.VIEWER, query=_QUERY, page=True)
def listing(query: Document) -> flask.Response:
    """List jobs, the newest first, with what can be done to all that match."""
    asked = Asked.of(query)
    found = jobs.listing(control(), asked.cluster, asked.filters, limit=_MANY, cursor=query.get("cursor"))
    with control().database.transaction() as session:
        many = bulk.count(session, asked.cluster, asked.filters)
        names = clusters.names_of(session, {job.cluster_id for job in found.items})
    return page(
        "jobs.html", title="Jobs", found=found, asked=asked, many=many, names=names, chips=_CHIPS, since=SINCE,
        most=jobs.MOST_COUNTED,
    )  # fmt: skip


@routes.get("/jobs/<job_id>")
@endpoint(Role.VIEWER, page=True)
def show(job_id: str) -> flask.Response:
    """Show a job, with the tree that it belongs to."""
    held = control()
    job = jobs.get(held, job_id)
    told = views.whole_job(job, jobs.progress(held, job))
    shown = views.tree(tree_views.show(held, job_id, from_root=True))
    try:
        with held.database.transaction() as session:
            cluster = clusters.get(session, job.cluster_id)
    except NotFound:  # of a client that told nothing of it
        cluster = None
    of_cluster: dict[str, Any] = {} if cluster is None else {"cluster": cluster}
    ended = job.status in FINISHED_JOB_STATUSES
    return page(
        "job.html", title=f"Job {job.id}", job=told, tree=shown["tree"], totals=shown["totals"],
        cut=shown["truncated"], facts=facts(told), ended=ended, poll=15 if ended else 2, home=cluster,
        again=job.status in DEAD_LETTER_STATUSES or job.status is JobStatus.CANCELLED,
        currency=held.settings.currency, **of_cluster,
    )  # fmt: skip


@routes.get("/dead-letters")
@endpoint(Role.VIEWER, query={"cluster": _WORD}, page=True)
def dead(query: Document) -> flask.Response:
    """Show the jobs that ended without success by what went wrong, of all clusters or of one."""
    cluster_id = query.get("cluster") or None
    if cluster_id is None:
        found = dead_letters.by_error(control(), Letters())
    else:
        found = dead_letters.grouped(control(), cluster_id, Letters())
    return page(
        "dead_letters.html", title="Dead letters", letters=[views.letter(one) for one in found], of=cluster_id,
        total=sum(one["count"] for one in found),
    )  # fmt: skip
