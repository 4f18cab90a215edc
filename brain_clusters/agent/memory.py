"""``context.memory``: what the agents of a cluster keep in common."""

from __future__ import annotations

from brain_clusters.agent.errors import HandlerError
from brain_clusters.broker.shared import ClusterStore


def memory_of(store: ClusterStore | None) -> ClusterStore:
    """Return the store; raise HandlerError that says what to add where the blueprint has none."""
    if store is None:
        raise HandlerError(
            "the cluster has no memory; add `resources: {memory: {size: 10MB, retention: 7 days}}` to its blueprint, "
            "and store that as a new version"
        )
    return store
