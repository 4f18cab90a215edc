"""Mounting the dashboard on an application of the API."""

from __future__ import annotations

import flask

from brain_clusters.api import pages
from brain_clusters.dashboard import (
    agent,
    audit,
    blueprints,
    cluster,
    clusters,
    hosts,
    jobs,
    keys,
    login,
    operations,
    overview,
    site,
)

SCREENS = (site, login, overview, clusters, cluster, agent, jobs, blueprints, operations, hosts, audit, keys)


def attach(app: flask.Flask) -> None:
    """Mount all screens on ``app``, and have it send who is not signed in to the sign-in."""
    site.prepare(app)
    for module in SCREENS:
        app.register_blueprint(module.routes)
    pages.attach(app, site.problem)
