"""The routes of the native dialect; docs/genesis-openapi.yaml describes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import flask

from brain_clusters import __version__
from brain_clusters.api.context import answer
from brain_clusters.api.genesis.attached import ID, attached, checked
from brain_clusters.api.requests import BATCH_LIMIT_BYTES, read_body, read_key, read_query
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import InvalidInput, NotFound
from brain_clusters.genesis.driver import Driver, Phase, Sighting
from brain_clusters.genesis.remote.forms import LOCAL
from brain_clusters.genesis.remote.keeper import Keeper
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("genesis", __name__, url_prefix="/v1/hosts/<host_id>")

SPAWNED_HOST = "spawn-dialect"
_MOST_AGENTS = 10_000
_OPEN: Schema = {
    "agent": {"type": "dict", "required": True},
    "installation": {"type": "string", "maxlength": 200, "default": ""},
}
_START: Schema = {"agents": {"type": "list", "required": True, "maxlength": 1000, "schema": {"type": "dict"}}}
_IDS = {"type": "list", "required": True, "maxlength": _MOST_AGENTS, "schema": {"type": "string", "regex": ID}}
_NAMED: Schema = {"agent_ids": _IDS}
_STOP: Schema = {"agent_ids": _IDS, "now": {"type": "boolean", "default": False}}
_WARM: Schema = {
    "warm": {"type": "list", "required": True, "nullable": True, "maxlength": 1000, "schema": {"type": "dict"}}
}
_CHANGES: Schema = {
    "after": {"type": "string", "required": True, "maxlength": 100},
    "wait": {"type": "integer", "min": 0, "max": 60, "default": 0},
}
_LOGS: Schema = {"lines": {"type": "integer", "min": 1, "max": 1000, "default": 100}}


@routes.put("")
def open_host(host_id: str) -> flask.Response:
    """Open a host, or find it open. Returns once its driver can be used."""
    if not re.fullmatch(ID, host_id) or host_id == SPAWNED_HOST:
        raise InvalidInput("a host's name has up to 200 letters, digits, '.', '_' and '-', and a letter or digit first")
    body = checked(read_body(), _OPEN)
    config, stated = attached().config, body["agent"]
    unknown = sorted(stated.keys() - (config.keys() - set(LOCAL)))
    if unknown:
        named = ", ".join(f"agent.{key}" for key in unknown)
        raise InvalidInput(f"this service, brain-clusters {__version__}, does not know {named}")
    if not isinstance(stated.get("redis_url"), str):
        raise InvalidInput("agent.redis_url must be the address of Redis")
    keeper = attached().keepers.open(host_id, body)
    keeper.call(lambda _: None)
    return answer({"host": host_id, "driver": attached().driver, "version": __version__})


@routes.post("/agents")
def start(host_id: str) -> flask.Response:
    """Have agents started; those that are there are left as they are, and each that cannot be is told as ended."""
    body = read_body(BATCH_LIMIT_BYTES)
    specs: list[AgentSpec] = []
    refused = []
    for found in checked(body, _START)["agents"]:
        try:
            specs.append(_spec(found))
        except (TypeError, KeyError, ValueError, AttributeError) as exc:
            agent_id = str(found.get("agent_id"))[:200]
            refused.append(Sighting(agent_id, Phase.ENDED, reason=f"the Genesis service cannot read its spec: {exc}"))

    def work(keeper: Keeper, driver: Driver) -> Any:
        gone = set(keeper.journal.ended())
        keeper.journal.note([*driver.start([one for one in specs if one.agent_id not in gone]), *refused])
        return keeper.journal.page([*(one.agent_id for one in specs), *(one.agent_id for one in refused)])

    return _once(host_id, body, work)


@routes.get("/agents")
def list_agents(host_id: str) -> flask.Response:
    """Return all agents of the host, ended ones, too, until they are removed; and the cursor to go on from."""
    keeper = attached().keepers.of(host_id)
    keeper.call(lambda driver: keeper.journal.note(driver.sight()))
    return answer(keeper.journal.page())


@routes.get("/changes")
def changes(host_id: str) -> flask.Response:
    """Return what changed since a cursor; wait for it, unless too many wait already."""
    query = read_query(_CHANGES)
    keeper = attached().keepers.of(host_id)
    waits = attached().waits
    seconds = query["wait"] if waits.acquire(blocking=False) else None
    try:
        found = keeper.journal.since(query["after"], seconds or 0)
    finally:
        if seconds is not None:
            waits.release()
    return answer({**found, "memory": dict(keeper.memory)})


@routes.post("/agents/drain")
def drain(host_id: str) -> flask.Response:
    """Have agents finish what they do and leave."""
    return _tell(host_id, _NAMED, lambda driver, stated: driver.drain(stated["agent_ids"]))


@routes.post("/agents/resume")
def resume(host_id: str) -> flask.Response:
    """Have agents go on that were to leave."""
    return _tell(host_id, _NAMED, lambda driver, stated: driver.resume(stated["agent_ids"]))


@routes.post("/agents/stop")
def stop(host_id: str) -> flask.Response:
    """Have agents end for good, or kill them."""
    return _tell(host_id, _STOP, lambda driver, stated: driver.stop(stated["agent_ids"], now=stated["now"]))


@routes.post("/agents/remove")
def remove(host_id: str) -> flask.Response:
    """Forget agents that ended, with all that they left."""
    body = read_body()
    ids = checked(body, _NAMED)["agent_ids"]

    def work(keeper: Keeper, driver: Driver) -> Any:
        driver.remove(ids)
        keeper.journal.forget(ids)
        return keeper.journal.page([])

    return _once(host_id, body, work)


@routes.get("/agents/<agent_id>/logs")
def logs(host_id: str, agent_id: str) -> flask.Response:
    """Return the end of what an agent wrote."""
    if not re.fullmatch(ID, agent_id):
        raise NotFound("no agent has such an id")
    lines = read_query(_LOGS)["lines"]
    keeper = attached().keepers.of(host_id)
    return answer({"text": keeper.call(lambda driver: driver.logs(agent_id, lines))})


@routes.put("/warm")
def keep_warm(host_id: str) -> flask.Response:
    """Say what is to be kept imported."""
    stated = checked(read_body(), _WARM)["warm"]
    try:
        warm = None if stated is None else [Loads.from_dict(found) for found in stated]
    except (TypeError, KeyError, ValueError) as exc:
        raise InvalidInput(f"what is to be kept imported cannot be read: {exc}") from exc
    attached().keepers.of(host_id).warm = warm
    return answer({})


def _spec(found: Any) -> AgentSpec:
    spec = AgentSpec.from_dict(found)
    if not re.fullmatch(ID, spec.agent_id):
        raise ValueError("its agent_id may hold up to 200 letters, digits, '.', '_' and '-'")
    return spec


def _tell(host_id: str, schema: Schema, tell: Callable[[Driver, dict[str, Any]], None]) -> flask.Response:
    """Answer with how the named agents are, as far as there are any."""
    body = read_body()
    stated = checked(body, schema)

    def work(keeper: Keeper, driver: Driver) -> Any:
        tell(driver, stated)
        return keeper.journal.page(stated["agent_ids"])

    return _once(host_id, body, work)


def _once(host_id: str, body: Any, work: Callable[[Keeper, Driver], Any]) -> flask.Response:
    """Answer with what ``work`` returns, or returned when this request came first."""
    keeper = attached().keepers.of(host_id)
    return answer(attached().answers.once(read_key(body), lambda: keeper.call(lambda driver: work(keeper, driver))))
