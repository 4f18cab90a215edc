"""Which clusters need no look at all: nothing to do, and nothing that could be taken away. Pure.

Most clusters of a large installation are like that at most moments, and deciding about them would be most of a tick.
"""

from __future__ import annotations

from brain_clusters.domain.gates import within
from brain_clusters.domain.sleeping import sleeps_after
from brain_clusters.domain.specs import Blueprint


def rests_for(
    blueprint: Blueprint, targets: tuple[int, ...], bounds: tuple[int, int], *, persistent: bool
) -> float | None:
    """Return for how many idle seconds ``choosing.choose`` would change nothing in a settled cluster without any work.

    targets: the desired count of each group, in blueprint order. bounds: the cluster's min_workers and max_workers.
    Infinity: for ever; None: it has to be looked at.
    """
    policy, (fewest, most) = blueprint.scaling, bounds
    if policy.schedule or not fewest <= sum(targets) <= most:
        return None
    if policy.policy == "step":
        at_rest = sum(targets) == fewest and policy.scale_up_threshold >= 0
    else:
        at_rest = policy.metric in ("task_queue_length", "queue_latency") and all(
            target == within(group, max(policy.buffer_workers, policy.idle_workers))
            for group, target in zip(blueprint.groups, targets, strict=True)
            if group.count.scalable
        )
    if not at_rest:
        return None
    idle = sleeps_after(blueprint, persistent=persistent)
    return float("inf") if idle is None else idle


def sleeps_on(blueprint: Blueprint) -> float | None:
    """Return for how many seconds of sleep nothing changes while no job comes and none is due. As ``rests_for``."""
    if blueprint.scaling.schedule or blueprint.lifecycle.reactivate.schedules:
        return None
    limit = blueprint.lifecycle.destroy.hibernated_seconds
    return float("inf") if limit is None else limit
