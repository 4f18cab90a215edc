"""What the hosts of one of the contract's tests share: an engine, a Redis, and the specs of agents on them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brain_clusters.config import Settings, user_environment
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.jobs import HANDLER
from brain_clusters.genesis.driver import Factory, Kit, Words

_BEAT_SECONDS = 0.2
_STALE_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the hosts of one test share. redis_url: as tests reach it; agents_redis_url: as agents do.

    home: a folder of the test's own. environ: the variables of its hosts, besides the user's. patience_seconds: how
    long anything may take on this engine.
    """

    factory: Factory
    engine: Engine
    redis_url: str
    agents_redis_url: str
    home: Path
    patience_seconds: float
    environ: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"contract-{secrets.token_hex(4)}")

    def kit(self, host_id: str, words: Words) -> Kit:
        """Return what the host ``host_id`` makes its driver with."""
        settings = Settings(home=self.home, redis_url=self.redis_url, agent_redis_url=self.agents_redis_url)
        agent = {
            "redis_url": self.redis_url,
            "host_id": host_id,
            "run_dir": str(self.home / "run" / host_id),
            "log_dir": str(self.home / "logs" / "agents"),
            "handler_path": (),
            "beat_interval": _BEAT_SECONDS,
            "beat_stale": _STALE_SECONDS,
        }
        # What agents leave when they are killed goes with the test.
        environ = {**user_environment(), "TMPDIR": str(self.home), **self.environ}
        return Kit(settings, host_id, agent, environ, words)

    def keys(self, host: str) -> str:
        """Return what the keys of a host's jobs begin with."""
        return f"{self.name}:{host}"

    def spec(self, host: str, **fields: Any) -> AgentSpec:
        """Return the spec of an agent that does ``contract.jobs``, or what ``fields`` say instead."""
        agent_id = f"{self.name}.clerks.{secrets.token_hex(4)}"
        given = {"handler": HANDLER, "engine": self.engine, "queue": f"{self.keys(host)}:{agent_id}", **fields}
        return AgentSpec(agent_id=agent_id, cluster_id=self.name, group_name="Clerks", role="worker", **given)
