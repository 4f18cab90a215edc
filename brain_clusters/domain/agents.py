"""What a driver needs to know to start one agent, as plain data that fits into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from brain_clusters.domain.sharing import SharedMemory
from brain_clusters.domain.specs import Budget, Tree
from brain_clusters.domain.work import CeleryApp, HttpCall, LlmCall, celery_app, http_call, llm_call


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent to run. Fields of its group mean what they mean in ``specs.AgentGroup``.

    delegates: the groups that report to its own, by name: {"queue": ..., "capabilities": [...]}.
    memory: the bounds of ``resources.memory``, None where there is none. budget, tree: the cluster's.
    """

    agent_id: str
    cluster_id: str
    group_name: str
    role: str
    queue: str
    handler: str | None = None
    command: tuple[str, ...] | None = None
    celery: CeleryApp | None = None
    http: HttpCall | None = None
    llm: LlmCall | None = None
    concurrency: int = 1
    pool: str | None = None
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    backoff_seconds: float = 1.0
    backoff_max_seconds: float = 300.0
    max_deliveries: int = 3
    capabilities: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    tree: Tree = field(default_factory=Tree)
    delegates: Mapping[str, Any] = field(default_factory=dict)
    memory: SharedMemory | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> AgentSpec:
        """Return the spec that ``as_dict`` wrote."""
        lists = {key: tuple(found[key]) for key in ("command", "capabilities", "skills") if found.get(key) is not None}
        parts: dict[str, Any] = {
            "celery": celery_app(found.get("celery")),
            "http": http_call(found.get("http")),
            "llm": llm_call(found.get("llm")),
            "budget": Budget(**found.get("budget", {})),
            "memory": SharedMemory(**found["memory"]) if found.get("memory") else None,
            "tree": Tree(**found.get("tree", {})),
        }
        return cls(**{**found, **lists, **parts})
