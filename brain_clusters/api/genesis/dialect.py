"""The reference's way to spawn an agent: ``POST /api/genesis/spawn``, for callers that know no other.

Here a blueprint is one of ours, and the agent one of its groups. The trait ``brain.group`` names it, where there are
several, and ``brain.cluster_id`` the cluster whose queue it works for; without it, that is the blueprint's own id. All
other traits, and the seed, are its ``config``. No host looks after such an agent: it lives until it is deleted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flask

from brain_clusters.api.context import answer
from brain_clusters.api.genesis.attached import ID, attached, checked
from brain_clusters.api.requests import read_body, read_key
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.errors import InvalidInput, NotFound, TemporaryError
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.remote.keeper import Keeper
from brain_clusters.services.requests import Schema
from brain_clusters.services.specs import spec_of

routes = flask.Blueprint("spawn", __name__, url_prefix="/api/genesis")

_ID = {"type": "string", "regex": ID}
_SPAWN: Schema = {
    "blueprint_id": {**_ID, "required": True},
    "agent_id": {**_ID, "required": True},
    "trait_overrides": {"type": "dict", "default": {}, "nullable": True},
    "seed": {"type": "integer", "nullable": True, "default": None},
}


@routes.post("/spawn")
def spawn() -> flask.Response:
    """Start an agent of a blueprint, once for each agent_id."""
    body = read_body()
    stated = checked(body, _SPAWN)
    spec = _spec(stated)
    keeper = _keeper()

    def work(driver: Driver) -> Any:
        keeper.journal.note(driver.start([spec]))
        return keeper.journal.page([spec.agent_id])["agents"]

    found = attached().answers.once(read_key(body), lambda: keeper.call(work))
    told = {"agent_id": spec.agent_id, "blueprint_id": spec.blueprint_id, "seed": stated["seed"]}
    return answer({**told, "status": found[0]["phase"] if found else "ended", "queue": spec.queue}, 201)


@routes.delete("/agents/<agent_id>")
def kill(agent_id: str) -> flask.Response:
    """End an agent at once; what it worked on goes back to its queue."""
    _keeper().call(lambda driver: driver.stop([agent_id], now=True))
    return flask.Response(status=204)


def _keeper() -> Keeper:
    keeper = attached().spawned
    if keeper is None:
        raise TemporaryError("agents can be spawned here once BRAIN_REDIS_URL of this service says where they work")
    return keeper


def _spec(stated: dict[str, Any]) -> AgentSpec:
    blueprint = attached().blueprints.get(stated["blueprint_id"])
    if blueprint is None:
        known = ", ".join(sorted(attached().blueprints)) or "none"
        raise NotFound(f"there is no blueprint {stated['blueprint_id']} here; there are: {known}")
    traits = dict(stated["trait_overrides"] or {})
    group = _group(blueprint, traits.pop("brain.group", None))
    cluster_id = traits.pop("brain.cluster_id", blueprint.id)
    queue = traits.pop("brain.queue", None)
    spec = spec_of(stated["agent_id"], str(cluster_id), group, blueprint)
    config = {**spec.config, **traits} | ({} if stated["seed"] is None else {"seed": stated["seed"]})
    return replace(spec, config=config, queue=spec.queue if queue is None else str(queue))


def _group(blueprint: Blueprint, name: Any) -> AgentGroup:
    if name is None and len(blueprint.groups) == 1:
        return blueprint.groups[0]
    group = blueprint.group(str(name)) if name is not None else None
    if group is None:
        names = ", ".join(one.name for one in blueprint.groups)
        raise InvalidInput(f"the trait brain.group must name a group of {blueprint.id}: {names}")
    return group
