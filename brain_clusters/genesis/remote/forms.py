"""What goes over the wire, as JSON: see docs/genesis-openapi.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.driver import Phase, Sighting

# Of an ``agent.config.AgentConfig``, what only means something where the agent runs: the service has its own.
LOCAL = ("host_id", "run_dir", "log_dir", "handler_path", "told_by_redis")


def sent_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an agent's configuration that travels."""
    return {key: value for key, value in config.items() if key not in LOCAL}


def as_json(sighting: Sighting, version: int) -> dict[str, Any]:
    """Return a sighting as JSON-ready data. version: grows with each that the service tells."""
    return {**asdict(sighting), "phase": str(sighting.phase), "handle": dict(sighting.handle), "version": version}


def sightings(found: Any, place: str) -> list[tuple[int, Sighting]]:
    """Return the sightings of an answer with their versions; raise TemporaryError for what is no such answer.

    place: where the service is. It becomes part of the handle, which so is never empty.
    """
    try:
        return [(int(one["version"]), _sighting(one, place)) for one in _items(found["agents"])]
    except (KeyError, TypeError, ValueError) as exc:
        raise TemporaryError(f"what answers at {place} is no Genesis service: its agents cannot be read") from exc


def _items(found: Any) -> Iterable[Any]:
    if not isinstance(found, list):
        raise TypeError("no list")
    return found


def _sighting(one: Mapping[str, Any], place: str) -> Sighting:
    return Sighting(
        agent_id=str(one["agent_id"]),
        phase=Phase(one["phase"]),
        handle={"genesis": place, **one.get("handle", {})},
        ready=one.get("ready"),
        reason=one.get("reason"),
        code=one.get("code"),
    )
