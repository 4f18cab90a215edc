"""Runs the Genesis service: ``brain-clusters genesis``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import flask

from brain_clusters import drivers
from brain_clusters.api.genesis.app import create_app
from brain_clusters.api.genesis.attached import Answers, Attached
from brain_clusters.api.genesis.native import SPAWNED_HOST
from brain_clusters.api.server import Server
from brain_clusters.blueprints.validator import load_blueprint
from brain_clusters.broker.client import connect
from brain_clusters.broker.restore import restore
from brain_clusters.broker.words import DrainWords
from brain_clusters.config import Settings, user_environment
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.domain.specs import Blueprint
from brain_clusters.errors import BrainError, ConfigError
from brain_clusters.genesis.driver import Driver, Kit
from brain_clusters.genesis.remote.keeper import Keeper
from brain_clusters.genesis.remote.keepers import Keepers
from brain_clusters.shipped import shipped

log = logging.getLogger(__name__)

# Each host that uses the service has one poll waiting at nearly all times.
_THREADS = 64


def serve(settings: Settings, driver: str, address: tuple[str, int], config: Mapping[str, Any]) -> None:
    """Serve ``driver`` until SIGTERM. config: an AgentConfig as JSON-ready data, for what hosts do not say.

    Raises ConfigError for an address that others reach without a key.
    """
    host, port = address
    if not settings.genesis_key and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached by others, and whoever reaches this service can run programs here: set "
            "BRAIN_GENESIS_KEY first, or listen on 127.0.0.1"
        )
    keepers = Keepers(lambda host_id, stated: _driver(settings, driver, host_id, config, stated))

    def make() -> flask.Flask:
        spawned = _spawned(settings, keepers)
        blueprints = _blueprints(settings) if spawned else {}
        waits = threading.Semaphore(_THREADS * 3 // 4)
        return create_app(
            Attached(driver, settings.genesis_key, config, keepers, waits, spawned, blueprints, Answers())
        )

    log.info("agents of the driver %s are started for hosts that ask at %s:%d", driver, host, port)
    Server(host, port, _THREADS, make, at_exit=keepers.close).run()


def _driver(
    settings: Settings, name: str, host_id: str, config: Mapping[str, Any], stated: Mapping[str, Any]
) -> Driver:
    """Return a new driver for a host, with folders of its own. stated: what ``Keepers.open`` was given."""
    alone = host_id == SPAWNED_HOST
    agent = {
        **config,
        **stated["agent"],
        "host_id": None if alone else host_id,
        "told_by_redis": alone,
        "run_dir": str(settings.home / "run" / host_id),
        "log_dir": str(settings.home / "logs" / "agents" / host_id),
    }
    redis_url = str(agent["redis_url"])
    ours = replace(settings, host_id=host_id, redis_url=redis_url, agent_redis_url=redis_url)
    kit = Kit(ours, host_id, agent, user_environment(), DrainWords(connect(redis_url)), lambda: stated["installation"])
    found: Driver = drivers.installed()[name].load()(kit)
    return found


def _spawned(settings: Settings, keepers: Keepers) -> Keeper | None:
    """Return the keeper of agents that the dialect spawns: no host looks after them, so this service does."""
    redis_url = settings.agent_redis_url or settings.redis_url
    if redis_url is None:
        return None
    client = connect(redis_url)

    def bury(agent_ids: Sequence[str]) -> None:
        for agent_id in agent_ids:
            restore(client, agent_id)

    return keepers.open(SPAWNED_HOST, {"agent": {"redis_url": redis_url}, "installation": ""}, bury)


def _blueprints(settings: Settings) -> dict[str, Blueprint]:
    """Return the blueprints that agents can be spawned of: our examples, and those of BRAIN_BLUEPRINTS_PATH."""
    folders = [shipped("blueprints"), *([settings.blueprints_path] if settings.blueprints_path else [])]
    found = {}
    for path in [path for folder in folders for path in sorted(folder.glob("*.yaml"))]:
        try:
            blueprint = load_blueprint(path)
        except BrainError as exc:
            log.warning("no agents can be spawned of %s: %s", path, exc)
        else:
            found[blueprint.id] = blueprint
    return found
