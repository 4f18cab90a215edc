"""What a driver needs to know to start one agent, as plain data that fits into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent to run. handler ("package.module:function") or command (argv), or neither.

    timeout_seconds bounds a command's run; None is no bound. max_deliveries: see ``specs.AgentGroup``.
    """

    agent_id: str
    cluster_id: str
    group_name: str
    role: str
    queue: str
    handler: str | None = None
    command: tuple[str, ...] | None = None
    concurrency: int = 1
    timeout_seconds: float | None = None
    max_deliveries: int = 3
    capabilities: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> AgentSpec:
        """Return the spec that ``as_dict`` wrote."""
        lists = {key: tuple(found[key]) for key in ("command", "capabilities") if found.get(key) is not None}
        return cls(**{**found, **lists})
