"""What monitors are told: the names, kinds and labels of all metrics, and the buckets of histograms.

Names follow Prometheus's conventions (https://prometheus.io/docs/practices/naming): base units, ``_total`` for
counters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

# Seconds. From a forked agent's start (some ms) to a job of an hour, about three a decade.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
SUM = "sum"
_BUCKET_NAMES = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")
# What a series is summed under that belongs to a cluster beyond the number that are told apart.
OTHER = "_other"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. labels: their names, in order."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str


_GROUP = ("cluster", "group")
_HOST = ("host", "driver")
METRICS = {
    metric.name: metric
    for metric in (
        Metric("brain_build_info", "gauge", ("version", "commit"), "Always 1; what is running."),
        Metric("brain_redis_up", "gauge", (), "1 when Redis answered this scrape. Without it, jobs are not told."),
        Metric("brain_groups_unknown", "gauge", (), "Groups whose jobs nobody could count at this scrape."),
        Metric("brain_tick_age_seconds", "gauge", (), "Seconds since the autoscaler looked last."),
        Metric("brain_hosts", "gauge", ("driver", "state"), "Hosts by driver and state: up, or silent."),
        Metric("brain_host_up", "gauge", _HOST, "1 while a host tells of itself, 0 when it does not."),
        Metric("brain_host_agents", "gauge", _HOST, "Agents that live on a host."),
        Metric("brain_host_capacity_agents", "gauge", _HOST, "The most agents that a host runs."),
        Metric("brain_host_capacity_cpus", "gauge", _HOST, "Cores that a host has for agents, where it has a bound."),
        Metric("brain_host_asked_cpus", "gauge", _HOST, "Cores that the agents of a host ask for."),
        Metric("brain_host_capacity_bytes", "gauge", _HOST, "Memory that a host has for agents, where it has a bound."),
        Metric("brain_host_asked_bytes", "gauge", _HOST, "Memory that the agents of a host ask for."),
        Metric("brain_clusters", "gauge", ("status",), "Clusters by status."),
        Metric(
            "brain_cluster_info", "gauge", ("cluster", "name", "blueprint", "version", "status"),
            "Always 1; what a cluster is called and made from, and its status.",
        ),
        Metric("brain_cluster_health_ratio", "gauge", ("cluster",), "Health from 0 to 1."),
        Metric("brain_jobs_ready", "gauge", _GROUP, "Jobs that wait for an agent, those with a future ETA apart."),
        Metric("brain_jobs_reserved", "gauge", _GROUP, "Jobs that an agent was given and has not begun."),
        Metric("brain_jobs_running", "gauge", _GROUP, "Jobs in work."),
        Metric("brain_jobs_scheduled", "gauge", _GROUP, "Jobs that wait for their ETA."),
        Metric("brain_jobs_oldest_age_seconds", "gauge", _GROUP, "How long the oldest ready job has waited."),
        Metric("brain_jobs_dead_letters", "gauge", _GROUP, "Jobs that ended without success and were not put aside."),
        Metric("brain_agents", "gauge", (*_GROUP, "state"), "Agents: starting, idle, busy, draining."),
        Metric("brain_agents_wanted", "gauge", _GROUP, "Agents that the group is to have; 0 while it sleeps."),
        Metric("brain_jobs_total", "counter", (*_GROUP, "outcome"), "Finished jobs by outcome."),
        Metric("brain_job_seconds", "histogram", _GROUP, "How long finished jobs took, from begin to end."),
        Metric("brain_agent_start_seconds", "histogram", _GROUP, "From a host's claim until it was ready."),
        Metric("brain_agents_failed_total", "counter", _GROUP, "Agents that died unasked."),
        Metric("brain_wake_seconds", "histogram", ("cluster",), "From a cluster's waking until it was active."),
        Metric(
            "brain_decisions_total", "counter", ("cluster", "action", "gate"),
            "Decisions of the autoscaler as the ledger has them; gate: what held one back, empty for those that acted.",
        ),
        Metric("brain_operations_total", "counter", ("cluster", "kind", "outcome"), "Ended operations."),
        Metric("brain_operation_seconds", "histogram", ("kind",), "How long operations took until they ended."),
        Metric("brain_operations_unfinished", "gauge", ("kind",), "Operations that are pending or run."),
        Metric("brain_tokens_total", "counter", (*_GROUP, "direction"), "Tokens of language models: input, output."),
        Metric("brain_cost_total", "counter", ("cluster", "currency"), "Cost so far, as far as known."),
        Metric("brain_cost_today", "gauge", ("cluster", "currency"), "Cost since midnight (UTC), as far as known."),
        Metric("brain_saved_today", "gauge", ("cluster", "currency"), "What its sleep saved since midnight (UTC)."),
        Metric("brain_cost_per_hour", "gauge", ("cluster", "currency"), "Cost of an hour of its present agents."),
        Metric("brain_budget_per_day", "gauge", ("cluster", "currency"), "What a cluster may spend in a day (UTC)."),
    )
}  # fmt: skip


def bucket(seconds: float) -> str:
    """Return the bucket that ``seconds`` falls into, by its upper bound."""
    return _BUCKET_NAMES[bisect_left(BUCKETS, max(0.0, seconds))]


def cumulated(counts: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the upper bounds with how many were no longer, from counts by ``bucket``."""
    total = 0.0
    for name in _BUCKET_NAMES:
        total += counts.get(name, 0.0)
        yield name, total
