"""What a driver needs to know to start one agent, as plain data that fits into JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from brain_clusters.domain.engines import Engine, known
from brain_clusters.domain.sharing import SharedMemory
from brain_clusters.domain.specs import AgentGroup, Budget, Tree
from brain_clusters.domain.work import CeleryApp, HttpCall, LlmCall, celery_app, http_call, llm_call


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What has to be imported before an agent can be forked: a handler, an application with its broker, or what calls
    models (``llm``) and the skills of those names that are installed. environment: variables to set before.
    """

    handler: str | None = None
    app: str | None = None
    broker: str | None = None
    llm: bool = False
    skills: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The name of the zygote that has imported it; "" for the base zygote, which has imported nothing more."""
        if not self.environment:
            return self._imports
        return f"{self._imports} env {sha256(repr(self.environment).encode()).hexdigest()[:12]}".strip()

    @property
    def _imports(self) -> str:
        if self.app is not None:
            return f"celery {self.app} {self.broker or ''}".strip()
        if self.llm or self.skills:
            return f"{'llm' if self.llm else 'skills'} {', '.join(self.skills)}".strip()
        return self.handler or ""

    @classmethod
    def of(cls, group: AgentGroup | AgentSpec) -> Loads:
        """Return what the agents of ``group`` need. Those on gevent import it themselves, each for itself."""
        environment = tuple(sorted(group.engine.environment.items()))
        if group.celery is not None:
            return cls(app=group.celery.app, broker=group.celery.broker, environment=environment)
        if group.pool == "gevent" or group.command is not None or group.http is not None:
            return cls(environment=environment)
        if group.handler is not None:
            return cls(handler=group.handler, environment=environment)
        if group.llm is not None:
            return cls(llm=True, skills=_ordered(group.llm.tools), environment=environment)
        return cls(skills=_ordered((*group.capabilities, *group.skills)), environment=environment)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Loads:
        """Return what ``dataclasses.asdict`` and JSON made of one."""
        environment = tuple((name, text) for name, text in found["environment"])
        return cls(**{**found, "skills": tuple(found["skills"]), "environment": environment})


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names`` so that groups that need the same share a zygote."""
    return tuple(sorted(set(names)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent to run. Fields of its group mean what they mean in ``specs.AgentGroup``.

    delegates: the groups that report to its own, by name: {"queue": ..., "capabilities": [...]}.
    memory: the bounds of ``resources.memory``, None where there is none. budget, tree: the cluster's.
    engine: how it is run. drain_timeout_seconds, on_drain_timeout: how long it may finish what it does once it is to
    leave, and whether it is stopped then.
    """

    agent_id: str
    cluster_id: str
    blueprint_id: str = ""
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
    drain_timeout_seconds: float = 3600.0
    on_drain_timeout: str = "wait"
    engine: Engine = field(default_factory=Engine)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> AgentSpec:
        """Return the spec that ``as_dict`` wrote, be it of a newer version with more fields."""
        lists = {key: tuple(found[key]) for key in ("command", "capabilities", "skills") if found.get(key) is not None}
        parts: dict[str, Any] = {
            "celery": celery_app(found.get("celery")),
            "http": http_call(found.get("http")),
            "llm": llm_call(found.get("llm")),
            "budget": Budget(**known(Budget, found.get("budget", {}))),
            "memory": SharedMemory(**known(SharedMemory, found["memory"])) if found.get("memory") else None,
            "tree": Tree(**known(Tree, found.get("tree", {}))),
            "engine": Engine.from_dict(found.get("engine", {})),
        }
        return cls(**known(cls, {**found, **lists, **parts}))
