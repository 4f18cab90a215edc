"""The contract of a driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from brain_clusters.domain.agents import AgentSpec


class Driver(ABC):
    """Starts and stops agents on one engine, in batches.

    The rows in ``cluster_agents`` are what is wanted; a driver makes it so. Every call may be repeated: starting is
    idempotent by agent_id, and stopping what is gone succeeds. Calls return at once; that an agent is ready is seen
    from its beats, and that it ended is reported by the engine's own supervisor.
    """

    name: str

    @abstractmethod
    def start(self, specs: Sequence[AgentSpec]) -> None:
        """Begin to start ``specs``. Raises TemporaryError when the engine does not answer."""

    @abstractmethod
    def drain(self, agent_ids: Sequence[str]) -> None:
        """Let ``agent_ids`` finish what they do and leave. Raises TemporaryError when the engine does not answer."""

    @abstractmethod
    def resume(self, agent_ids: Sequence[str]) -> None:
        """Let ``agent_ids``, which were to drain, go on. One that has left is reported as ended, as it was asked to.

        Raises TemporaryError when the engine does not answer.
        """
