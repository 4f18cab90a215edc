"""The lifecycle commands: recorded, published, and answered with their operation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control, tagged
from brain_clusters.api.endpoint import endpoint
from brain_clusters.api.requests import read_body, read_if_match, read_key
from brain_clusters.api.wait import FINISHED, place_to_wait, until_finished
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import Command, Origin
from brain_clusters.domain.states import OperationKind
from brain_clusters.errors import TemporaryError
from brain_clusters.services import clusters, etags, idempotency, operations, rollouts
from brain_clusters.services.lifecycle import Accepted
from brain_clusters.services.requests import BODIES, parse_command

ACCEPTED = {200: answers.ACCEPTED, 202: answers.ACCEPTED}
COMMAND_HEADERS = ("Prefer", "Idempotency-Key", "If-Match")
_EXAMPLE = {"blueprint_id": "marketing-v1", "name": "Q1 campaign", "target_workers": 3, "tags": ["marketing"]}

routes = flask.Blueprint("lifecycle", __name__, url_prefix="/api/clusters")


@routes.post("")
@endpoint(
    Role.OPERATOR, reads=BODIES[OperationKind.CREATE], answers=ACCEPTED, headers=COMMAND_HEADERS[:2], example=_EXAMPLE
)
def create() -> flask.Response:
    """Make a cluster from a blueprint."""
    return run(lambda body: parse_command(OperationKind.CREATE, None, body))


@routes.put("/<cluster_id>")
@endpoint(Role.OPERATOR, reads=BODIES[OperationKind.UPDATE], answers=ACCEPTED, headers=COMMAND_HEADERS)
def update(cluster_id: str) -> flask.Response:
    """Change what can be edited."""
    return run(lambda body: parse_command(OperationKind.UPDATE, cluster_id, body))


@routes.delete("/<cluster_id>")
@endpoint(Role.ADMIN, reads=BODIES[OperationKind.DESTROY], answers=ACCEPTED, headers=COMMAND_HEADERS)
def destroy(cluster_id: str) -> flask.Response:
    """Stop every agent for good."""
    return run(lambda body: parse_command(OperationKind.DESTROY, cluster_id, body))


@routes.post("/<cluster_id>/scale")
@endpoint(Role.OPERATOR, reads=BODIES[OperationKind.SCALE], answers=ACCEPTED, headers=COMMAND_HEADERS)
def scale(cluster_id: str) -> flask.Response:
    """Set the number of all agents, or of single groups."""
    return run(lambda body: parse_command(OperationKind.SCALE, cluster_id, body))


@routes.post("/<cluster_id>/hibernate")
@endpoint(Role.OPERATOR, reads=BODIES[OperationKind.HIBERNATE], answers=ACCEPTED, headers=COMMAND_HEADERS)
def hibernate(cluster_id: str) -> flask.Response:
    """Put a cluster to sleep."""
    return run(lambda body: parse_command(OperationKind.HIBERNATE, cluster_id, body))


@routes.post("/<cluster_id>/reactivate")
@endpoint(Role.OPERATOR, reads=BODIES[OperationKind.REACTIVATE], answers=ACCEPTED, headers=COMMAND_HEADERS)
def reactivate(cluster_id: str) -> flask.Response:
    """Wake a cluster."""
    return run(lambda body: parse_command(OperationKind.REACTIVATE, cluster_id, body))


def run(command_of: Callable[[Any], Command]) -> flask.Response:
    """Submit the command that ``command_of`` makes of the body, once per key, and answer with its operation."""
    body = read_body()
    command = command_of(body)
    with place_to_wait() as seconds:
        key = read_key(body, seconds)
        origin = Origin("api", f"{command.kind} was asked for over HTTP", seen=read_if_match())
        accepted = idempotency.submit(control(), command, origin, key)
        try:
            if seconds:
                until_finished(str(accepted.operation.id), seconds)
                accepted = _as_it_stands(accepted)
        finally:
            if key is not None and seconds and not accepted.repeated:
                with suppress(TemporaryError):  # the mark runs out by itself
                    idempotency.answered(control(), key)
    return _answer(accepted, seconds)


def _as_it_stands(accepted: Accepted) -> Accepted:
    """Read both rows anew. What was accepted stays accepted when PostgreSQL has gone away since."""
    with suppress(TemporaryError), control().database.transaction() as session:
        operation = operations.get(session, str(accepted.operation.id))
        rollout = None if accepted.rollout is None else rollouts.get(session, str(accepted.rollout.id))
        return Accepted(operation, clusters.get(session, accepted.cluster.id), accepted.repeated, rollout=rollout)
    return accepted


def _answer(accepted: Accepted, waited: int) -> flask.Response:
    headers = {"Location": f"/api/operations/{accepted.operation.id}", **tagged(etags.of_cluster(accepted.cluster))}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    if accepted.repeated:
        headers["Idempotency-Replayed"] = "true"
    done = waited and accepted.operation.status in FINISHED
    body = {"operation": views.operation(accepted.operation), "cluster": views.cluster(accepted.cluster)}
    if accepted.rollout is not None:
        body["rollout"] = views.rollout(accepted.rollout)
    return answer(body, 200 if done else 202, headers)
