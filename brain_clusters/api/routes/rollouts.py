"""Rollouts of blueprint versions, and the autoscaler's pause."""

from __future__ import annotations

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import PAGE
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.api.routes.lifecycle import ACCEPTED, COMMAND_HEADERS, run
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import RolloutCluster, UpdateCluster
from brain_clusters.domain.states import OperationKind
from brain_clusters.services import rollouts
from brain_clusters.services.requests import NOTHING, ROLLOUT, UNDO, parse_command, validated

routes = flask.Blueprint("rollouts", __name__, url_prefix="/api")


@routes.post("/clusters/<cluster_id>/rollout")
@endpoint(Role.OPERATOR, reads=ROLLOUT, answers=ACCEPTED, headers=COMMAND_HEADERS)
def begin(cluster_id: str) -> flask.Response:
    """Bring a cluster to another version of its blueprint, a few agents at a time."""
    return run(lambda body: parse_command(OperationKind.ROLLOUT, cluster_id, body))


@routes.post("/clusters/<cluster_id>/rollout/undo")
@endpoint(Role.OPERATOR, reads=UNDO, answers=ACCEPTED, headers=COMMAND_HEADERS)
def undo(cluster_id: str) -> flask.Response:
    """Go back to the version that a cluster had before, or to another one."""
    return run(lambda body: RolloutCluster(cluster_id=cluster_id, undo=True, **_read(body, UNDO)))


@routes.post("/clusters/<cluster_id>/rollout/pause")
@endpoint(Role.OPERATOR, reads=NOTHING, answers=ACCEPTED, headers=COMMAND_HEADERS)
def pause_rollout(cluster_id: str) -> flask.Response:
    """Have no more agents replaced until the rollout is resumed."""
    return run(lambda body: RolloutCluster(cluster_id=cluster_id, steer="pause", **_read(body, NOTHING)))


@routes.post("/clusters/<cluster_id>/rollout/resume")
@endpoint(Role.OPERATOR, reads=NOTHING, answers=ACCEPTED, headers=COMMAND_HEADERS)
def resume_rollout(cluster_id: str) -> flask.Response:
    """Let a paused rollout go on."""
    return run(lambda body: RolloutCluster(cluster_id=cluster_id, steer="resume", **_read(body, NOTHING)))


@routes.get("/clusters/<cluster_id>/rollouts")
@endpoint(Role.VIEWER, query=PAGE, answers={200: answers.ROLLOUTS})
def listing(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's rollouts, newest first."""
    with control().database.transaction() as session:
        page = rollouts.listing(session, cluster_id, limit=query["limit"], cursor=query.get("cursor"))
    return page_of("rollouts", page, views.rollout)


@routes.get("/rollouts/<rollout_id>")
@endpoint(Role.VIEWER, answers={200: answers.ROLLOUT})
def get(rollout_id: str) -> flask.Response:
    """Show a rollout."""
    with control().database.transaction() as session:
        return answer(views.rollout(rollouts.get(session, rollout_id)))


@routes.post("/clusters/<cluster_id>/pause")
@endpoint(Role.OPERATOR, reads=NOTHING, answers=ACCEPTED, headers=COMMAND_HEADERS)
def pause(cluster_id: str) -> flask.Response:
    """Have the autoscaler leave a cluster alone."""
    return run(lambda body: UpdateCluster(cluster_id=cluster_id, paused=True, **_read(body, NOTHING)))


@routes.post("/clusters/<cluster_id>/resume")
@endpoint(Role.OPERATOR, reads=NOTHING, answers=ACCEPTED, headers=COMMAND_HEADERS)
def resume(cluster_id: str) -> flask.Response:
    """Have the autoscaler size a cluster again."""
    return run(lambda body: UpdateCluster(cluster_id=cluster_id, paused=False, **_read(body, NOTHING)))


def _read(body: object, schema: dict[str, dict[str, object]]) -> Document:
    return validated(body, schema, "the request body")
