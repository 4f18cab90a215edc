"""One cluster: how it is, why it has its size, what it costs, what happened in it, and what it was made from."""

from __future__ import annotations

from typing import Any

import flask

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard import cluster_shape, figures
from brain_clusters.dashboard.site import page, screen
from brain_clusters.db.models import Cluster
from brain_clusters.db.session import Session
from brain_clusters.domain.access import Role
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import TRANSITIONS, JobStatus
from brain_clusters.services import alerts, blueprints, chart_data, clusters, jobs, ledger, operations, rollouts
from brain_clusters.services.jobs import Filters
from brain_clusters.services.requests import Schema

routes = screen("cluster")

_WINDOW: Schema = {"window": {"type": "string", "allowed": list(chart_data.WINDOWS), "default": "1h"}}
_CURSOR: Schema = {"cursor": {"type": "string", "minlength": 1, "maxlength": 1000}}
_SCALING: Schema = {
    **_CURSOR,
    "action": {"type": "string", "allowed": ["", "scale", "hibernate", "reactivate", "destroy", "hold"]},
}
_JOBS: Schema = {**_CURSOR, "status": {"type": "string", "maxlength": 100}}
_VERSIONS: Schema = {"version": {"type": "string", "maxlength": 200}, "against": {"type": "string", "maxlength": 200}}
_FEW, _MANY = 8, 50


@routes.get("/clusters/<cluster_id>")
@endpoint(Role.VIEWER, query=_WINDOW, page=True)
def show(cluster_id: str, query: Document) -> flask.Response:
    """Show how a cluster is: figures, its agents, and what was decided, done and cost lately."""
    held = control()
    with held.database.transaction() as session:
        cluster, blueprint = _found(session, cluster_id)
        tree = cluster_shape.tree(held, session, cluster, blueprint)
        seconds = chart_data.window(query["window"], cluster.created_at)
        charted = chart_data.charted(session, cluster_id, seconds, held.settings.metrics_interval_seconds)
        turns = ledger.listing(session, cluster_id, action=None, limit=_FEW, cursor=None).items
        events = clusters.events(session, cluster_id, limit=_FEW, cursor=None).items
        alarms = [(rule, state) for rule, state in alerts.listing(session, cluster_id) if state.state != "ok"]
        bill = cluster_shape.bill(session, cluster, blueprint, held.settings.currency)
    return _page(
        cluster, blueprint, "show", tree=tree, charts=figures.of_cluster(charted), window=query["window"], bill=bill,
        windows=list(chart_data.WINDOWS), turns=[cluster_shape.turn(row) for row in turns], events=events,
        backlog=clusters.backlog_now(held, cluster), alarms=alarms,
        jobs=jobs.listing(held, cluster_id, Filters(), limit=_FEW, cursor=None).items,
    )  # fmt: skip


@routes.get("/clusters/<cluster_id>/scaling")
@endpoint(Role.VIEWER, query=_SCALING, page=True)
def scaling(cluster_id: str, query: Document) -> flask.Response:
    """Show each decision about a cluster's size and its reason, those that were held back too, and the one of now."""
    with control().database.transaction() as session:
        cluster, blueprint = _found(session, cluster_id)
        found = ledger.listing(
            session, cluster_id, action=query.get("action") or None, limit=_MANY, cursor=query.get("cursor")
        )
    turns = [cluster_shape.turn(row) for row in found.items]
    return _page(
        cluster, blueprint, "scaling", turns=turns, found=found, now=cluster_shape.now(control(), cluster_id),
        action=query.get("action") or "",
    )  # fmt: skip


@routes.get("/clusters/<cluster_id>/costs")
@endpoint(Role.VIEWER, page=True)
def costs(cluster_id: str) -> flask.Response:
    """Show what a cluster cost and what its sleep saved, by day and by group, and its budget."""
    with control().database.transaction() as session:
        cluster, blueprint = _found(session, cluster_id)
        bill = cluster_shape.bill(session, cluster, blueprint, control().settings.currency)
    return _page(cluster, blueprint, "costs", bill=bill)


@routes.get("/clusters/<cluster_id>/jobs")
@endpoint(Role.VIEWER, query=_JOBS, page=True)
def latest_jobs(cluster_id: str, query: Document) -> flask.Response:
    """Show a cluster's jobs, the newest first."""
    wanted = tuple(JobStatus(word) for word in query.get("status", "").split(",") if word in list(JobStatus))
    with control().database.transaction() as session:
        cluster, blueprint = _found(session, cluster_id)
    found = jobs.listing(control(), cluster_id, Filters(statuses=wanted), limit=_MANY, cursor=query.get("cursor"))
    return _page(
        cluster, blueprint, "jobs", found=found, status=query.get("status", ""), statuses=list(JobStatus)
    )  # fmt: skip


@routes.get("/clusters/<cluster_id>/events")
@endpoint(Role.VIEWER, query=_CURSOR, page=True)
def events(cluster_id: str, query: Document) -> flask.Response:
    """Show a cluster's history and its last operations."""
    with control().database.transaction() as session:
        cluster, blueprint = _found(session, cluster_id)
        found = clusters.events(session, cluster_id, limit=_MANY, cursor=query.get("cursor"))
        last = operations.listing(session, cluster_id, limit=_FEW, cursor=None).items
    return _page(cluster, blueprint, "events", found=found, operations=last)


@routes.get("/clusters/<cluster_id>/blueprint")
@endpoint(Role.VIEWER, query=_VERSIONS, page=True)
def blueprint(cluster_id: str, query: Document) -> flask.Response:
    """Show the text of a cluster's blueprint, and how versions differ."""
    with control().database.transaction() as session:
        cluster, parsed = _found(session, cluster_id)
        version = query.get("version") or cluster.blueprint_version
        against = query.get("against")
        text = cluster_shape.text_of(session, cluster.blueprint_id, version)
        lines = cluster_shape.difference(session, cluster.blueprint_id, against, version) if against else None
        versions = blueprints.versions(session, cluster.blueprint_id)
        past = rollouts.listing(session, cluster_id, limit=_FEW, cursor=None).items
    return _page(
        cluster, parsed, "blueprint", text=text, lines=lines, version=version, against=against, versions=versions,
        rollouts=past,
    )  # fmt: skip


def _found(session: Session, cluster_id: str) -> tuple[Cluster, Blueprint]:
    cluster = clusters.get(session, cluster_id)
    return cluster, blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)


def _page(cluster: Cluster, parsed: Blueprint, tab: str, **shown: Any) -> flask.Response:
    with control().database.transaction() as session:
        rollout = rollouts.under_way_of(session, [cluster.id]).get(cluster.id)
    return page(
        f"cluster_{tab}.html", title=cluster.name, cluster=cluster, parsed=parsed, tab=tab, rollout=rollout,
        possible=[str(kind) for kind in TRANSITIONS[cluster.intent]], currency=control().settings.currency, **shown,
    )  # fmt: skip
