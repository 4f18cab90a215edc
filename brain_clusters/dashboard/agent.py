"""One agent: its state, its beat, what it works on, and what it wrote."""

from __future__ import annotations

import flask

from brain_clusters.api import redaction, views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.services import agent_logs, agents, clusters

routes = screen("agent")

_LINES = 200


@routes.get("/agents/<agent_id>")
@endpoint(Role.VIEWER, page=True)
def show(agent_id: str) -> flask.Response:
    """Show an agent, also one that is gone."""
    held = control()
    with held.database.transaction() as session:
        row = agents.get(session, agent_id)
        cluster = clusters.get(session, row.cluster_id)
        recent = agents.latest_jobs(session, row)
    beats = clusters.beats(held, [agent_id])
    current = agents.present_jobs(held, row)
    present = {job.id for job in current or ()}
    done = [*(current or ()), *(job for job in recent if job.id not in present)]
    return page(
        "agent.html", title=agent_id, cluster=cluster, agent=row, told=views.agent(row, beats), jobs=done,
        current=current, lives=row.status in LIVE_AGENT_STATUSES, poll=3,
        log=agent_logs.tail(held, row, _LINES) if redaction.may_read() else None,
    )  # fmt: skip
