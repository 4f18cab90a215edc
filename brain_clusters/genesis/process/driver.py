"""The process driver, as the control plane sees it: hosts take their work from the rows, so it only wakes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.driver import Driver


class ProcessDriver(Driver):
    """Wakes every host. Each claims pending agents up to its capacity, so no agent is started twice.

    wake: tells all hosts that there is something to do; one that does not hear it looks every second anyway.
    """

    name = "process"

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def start(self, specs: Sequence[AgentSpec]) -> None:
        """Wake the hosts for the rows of ``specs``, which were committed before."""
        if specs:
            self._wake()

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Wake the hosts for the rows of ``agent_ids``, which were committed as draining before."""
        if agent_ids:
            self._wake()

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Wake the hosts for the rows of ``agent_ids``, which were committed as draining no more before."""
        if agent_ids:
            self._wake()
