"""The word to drain, for agents that nothing but Redis can reach: a key that they look for with each beat."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away

# Longer than any drain should take. It is deleted with its agent.
_KEPT_SECONDS = 7 * 86_400


class DrainWords:
    """Implements ``genesis.driver.Words``."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def tell(self, agent_ids: Sequence[str], *, drain: bool) -> None:
        """Tell agents to drain, or to go on. Raises TemporaryError while Redis is away."""
        with temporary_when_away(), self._client.pipeline(transaction=False) as pipe:
            for agent_id in agent_ids:
                if drain:
                    pipe.set(names.drain_key(agent_id), "", ex=_KEPT_SECONDS)
                else:
                    pipe.delete(names.drain_key(agent_id))
            pipe.execute()
