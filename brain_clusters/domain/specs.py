"""What a blueprint says, as frozen data. Made by ``blueprints/``, read by everyone.

Durations are seconds, percentages 0 to 100, sizes bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from brain_clusters.domain.alerts import AlertRule
from brain_clusters.domain.engines import Engine
from brain_clusters.domain.states import AgentRole, ClusterType
from brain_clusters.domain.work import CeleryApp, HttpCall, LlmCall

MAX_COUNT = 10_000
# For how long the broker keeps a message for the agent that took it, three years. Far beyond any job: messages go back
# to their queue when their owner is known dead, never because time passed.
VISIBILITY_SECONDS = 10**8
_COUNT = re.compile(r"\s*([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?\s*", re.ASCII)


@lru_cache(maxsize=10_000)
def slug(name: str) -> str:
    """Return ``name`` as a lower-case word for queue and agent names: "Image Generator" -> "image-generator"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class Count:
    """How many agents a group may have: ``count: 2`` is fixed, ``count: 0-5`` is scalable."""

    minimum: int
    maximum: int
    scalable: bool


def parse_count(value: object) -> Count:
    """Return ``2`` as a fixed count and ``"0-5"`` as a scalable one. Raise ValueError with a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return Count(value, value, scalable=False)
    ends = _COUNT.fullmatch(value) if isinstance(value, str) else None
    if ends is None:
        raise ValueError('must be a whole number such as 2, or a range such as "0-5"')
    minimum, maximum = int(ends[1]), int(ends[2] or ends[1])
    if not minimum <= maximum <= MAX_COUNT:
        raise ValueError(f"must be a range from a lower to a higher number, at most {MAX_COUNT}")
    return Count(minimum, maximum, scalable=ends[2] is not None)


@dataclass(frozen=True, slots=True)
class AgentGroup:
    """One entry of the blueprint's ``agents:``.

    reports_to: the name of another group; None only in the supervisor itself.
    handler: "package.module:function"; command: argv; celery, http, llm: see ``domain.work``. At most one is set; with
    none, the skills and capabilities are looked for among the installed ones.
    concurrency: slots per agent. pool: how they run; None is solo for one slot and threads for several.
    standby: whether what its agents import stays in memory while the cluster sleeps.
    timeout_seconds: the longest one attempt may take. max_attempts, backoff_seconds, backoff_max_seconds: what holds
    for jobs that do not state their own, see ``jobs.JobOptions``; max_attempts None is one attempt that may raise.
    max_deliveries: how often a job without max_attempts may be delivered to an agent that then dies.
    cost: prices in the currency of the installation, by unit: per_hour of an agent, per_job, per_1k_input_tokens, ...
    """

    name: str
    role: AgentRole
    count: Count
    reports_to: str | None = None
    capabilities: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    handler: str | None = None
    command: tuple[str, ...] | None = None
    celery: CeleryApp | None = None
    http: HttpCall | None = None
    llm: LlmCall | None = None
    concurrency: int = 1
    pool: Literal["solo", "threads", "prefork", "gevent"] | None = None
    standby: Literal["warm", "cold"] = "cold"
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    backoff_seconds: float = 1.0
    backoff_max_seconds: float = 300.0
    max_deliveries: int = 3
    engine: Engine = field(default_factory=Engine)
    cost: Mapping[str, float] = field(default_factory=dict)
    description: str | None = None

    @property
    def driver(self) -> str:
        """The name of the driver that runs its agents."""
        return self.engine.driver

    @property
    def slug(self) -> str:
        """The group's part of queue and agent names."""
        return slug(self.name)


@dataclass(frozen=True, slots=True)
class ScalingSchedule:
    """One entry of ``cluster.scaling.schedule``: at least ``min_workers`` from ``start`` to ``end``.

    start, end: five-field cron expressions, read in ``timezone`` (an IANA name).
    """

    start: str
    end: str
    min_workers: int
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """``cluster.scaling``. Names, units and defaults are those of the blueprint format.

    ``scale_up_threshold`` and ``scale_down_threshold`` gate a change with strict comparisons on ``metric``.
    payback: an agent is also worth starting for so many seconds of waiting work, whatever the target; 0 is never.
    scale_down_stabilization_seconds: None is learned; see ``domain.windows``.
    paused: which directions are held: "in" is down, "out" is up. dry_run: decide and record, do not act.
    """

    metric: Literal["task_queue_length", "queue_latency", "cpu_usage", "load_percentage"] = "task_queue_length"
    policy: Literal["target", "step"] = "target"
    scale_up_threshold: float = 0.0
    scale_down_threshold: float = 1.0
    cooldown_seconds: float = 10.0
    target_latency_seconds: float = 30.0
    target_utilization: float = 0.8
    queue_per_slot: int = 5
    activation_threshold: int = 0
    payback_seconds: float = 10.0
    polling_interval_seconds: float = 2.0
    hibernate_after_seconds: float = 300.0
    hibernate_eta_horizon_seconds: float = 60.0
    drain_timeout_seconds: float = 3600.0
    on_drain_timeout: Literal["wait", "stop"] = "wait"
    stable_window_seconds: float = 60.0
    panic_window_seconds: float = 6.0
    panic_threshold: float = 2.0
    tolerance: float = 0.1
    scale_up_stabilization_seconds: float = 0.0
    scale_up_max_percent: float = 100.0
    scale_up_max_workers: int = 4
    scale_up_period_seconds: float = 15.0
    scale_down_stabilization_seconds: float | None = None
    scale_down_consecutive: int = 3
    idle_workers: int = 0
    buffer_workers: int = 0
    fallback_failure_threshold: int = 3
    fallback_workers: int = 1
    schedule: tuple[ScalingSchedule, ...] = ()
    paused: Literal["no", "in", "out", "both"] = "no"
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class HibernateRules:
    """``lifecycle.hibernate_conditions``: all that are stated must hold. None is "not stated"."""

    idle_seconds: float | None = None
    task_queue_empty: bool = True
    load_below_percent: float | None = None


@dataclass(frozen=True, slots=True)
class DestroyRules:
    """``lifecycle.destroy_conditions``: a cluster hibernated for so long is destroyed."""

    hibernated_seconds: float | None = None
    manual_trigger: bool = True


@dataclass(frozen=True, slots=True)
class ReactivateRules:
    """``lifecycle.reactivate_triggers``. schedules: five-field cron expressions, kept for the scheduler."""

    new_task_received: bool = True
    manual_trigger: bool = True
    schedules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """``lifecycle:``. ``hibernate`` is None where the blueprint states no hibernate_conditions."""

    hibernate: HibernateRules | None = None
    destroy: DestroyRules = field(default_factory=DestroyRules)
    reactivate: ReactivateRules = field(default_factory=ReactivateRules)


@dataclass(frozen=True, slots=True)
class Budget:
    """``budget:`` of a cluster or of one job tree, in the currency of the installation. None is no limit.

    on_exceeded: alert only tells; hibernate and stop also let no further call begin; hibernate puts the cluster to
    sleep until the day ends, stop drains it and keeps it so until somebody wakes it.
    """

    per_day: float | None = None
    per_tree: float | None = None
    on_exceeded: Literal["alert", "hibernate", "stop"] = "alert"


@dataclass(frozen=True, slots=True)
class Tree:
    """``cluster.delegation``: what one tree of delegated jobs may grow to."""

    max_depth: int = 8
    max_fan_out: int = 1000
    max_jobs: int = 10_000


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """``rollout:``: how a cluster's agents are replaced when it gets another version; see ``domain.rollouts``.

    max_parallel: how many at once, as a number or as a percentage of all. min_healthy_seconds: how long a new agent has
    to be ready before it counts. auto_revert: whether a version that fails is taken back.
    """

    max_parallel: int | str = "25%"
    min_healthy_seconds: float = 10.0
    auto_revert: bool = True
    progress_deadline_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A whole blueprint. ``groups`` keep the order of the file; exactly one has the role supervisor."""

    id: str
    name: str
    version: str
    cluster_type: ClusterType
    min_workers: int
    max_workers: int
    default_workers: int
    groups: tuple[AgentGroup, ...]
    author: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    scaling: ScalingPolicy = field(default_factory=ScalingPolicy)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    budget: Budget = field(default_factory=Budget)
    tree: Tree = field(default_factory=Tree)
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    resources: Mapping[str, Any] = field(default_factory=dict)
    monitoring: Mapping[str, Any] = field(default_factory=dict)
    alerts: tuple[AlertRule, ...] = ()
    # The groups whose agents are workers of another application; most blueprints have none, and the tick asks often.
    foreign: tuple[AgentGroup, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "foreign", tuple(group for group in self.groups if group.celery is not None))

    @property
    def supervisor(self) -> AgentGroup:
        """The one group whose role is supervisor."""
        return next(group for group in self.groups if group.role is AgentRole.SUPERVISOR)

    def group(self, name: str) -> AgentGroup | None:
        """Return the group called ``name`` (or whose slug it is), or None."""
        return next((group for group in self.groups if name in (group.name, group.slug)), None)

    def with_capability(self, capability: str) -> AgentGroup | None:
        """Return the first group in blueprint order that offers ``capability``, or None."""
        return next((group for group in self.groups if capability in group.capabilities), None)
