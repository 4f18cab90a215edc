"""What the driver keeps in mind of agents besides their pods."""

from __future__ import annotations

import time
from collections.abc import Sequence

_KEPT = 10_000


class Removed:
    """The agents that were removed, and the uids of their pods: the last ones, since late events are not much later."""

    def __init__(self) -> None:
        self.agents: dict[str, None] = {}
        self.uids: dict[str, None] = {}

    def add(self, agent_id: str, uid: str | None) -> None:
        """Note that an agent was removed. uid: of its pod, if there is one."""
        self.agents[agent_id] = None
        if uid is not None:
            self.uids[uid] = None
        for kept in (self.agents, self.uids):
            while len(kept) > _KEPT:
                del kept[next(iter(kept))]


class Lasting:
    """One condition of agents. It is told when it has lasted for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def overdue(self, agent_ids: Sequence[str]) -> list[str]:
        """Return those of ``agent_ids``, of whom it is so now, of whom it has been for long; forget all others."""
        now = time.monotonic()
        self._since = {agent_id: self._since.get(agent_id, now) for agent_id in agent_ids}
        return [agent_id for agent_id, since in self._since.items() if now - since > self._seconds]

    def begin_anew(self) -> None:
        """Count from now on."""
        self._since.clear()
