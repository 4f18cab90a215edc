"""The host's view of the control plane: what it reads and what it tells. ``services.hosting`` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from brain_clusters.domain.agents import AgentSpec, Loads


@dataclass(frozen=True, slots=True)
class Wanted:
    """A live row of this host.

    started: it was ready once. kill_after: seconds from the drain's begin until it may be killed; None is never.
    """

    spec: AgentSpec
    draining: bool
    started: bool = False
    draining_seconds: float = 0.0
    kill_after: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An agent that is gone. asked: it left because it was told to. error: for a person to read."""

    agent_id: str
    asked: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to read the last ``lines`` of an agent's log. id: of the question."""

    id: str
    agent_id: str
    lines: int


class Desk(Protocol):
    """The host's view of the control plane. Every call may raise TemporaryError and is then made again."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when rows may have changed; -1 while there is none."""

    def clear(self) -> None:
        """Take note of what made ``fileno`` readable."""

    def beat(self, warm: Mapping[str, int]) -> None:
        """Tell that this host lives. warm: the bytes of the zygotes that it keeps, by key."""

    def warm(self) -> Sequence[Loads]:
        """Return what is to be kept imported, as groups that are not gone ask for it, the most recent first."""

    def wanted(self) -> Sequence[Wanted]:
        """Return the live rows of this host."""

    def claim(self, room: int) -> Sequence[AgentSpec]:
        """Take up to ``room`` pending agents for this host."""

    def beating(self, agent_ids: Sequence[str]) -> Set[str]:
        """Return those of ``agent_ids`` that beat."""

    def ready(self, handles: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell that agents consume, each with its handle."""

    def explain(self, reasons: Mapping[str, str | None]) -> None:
        """Tell why agents still are starting, None for no more reason."""

    def release(self, agent_id: str) -> None:
        """Return what a dead agent held to its queue."""

    def ended(self, ended: Sequence[Ended]) -> None:
        """Tell that agents are gone and that what they held is back in the queue."""

    def asked(self) -> Sequence[Asked]:
        """Return the logs that somebody wants to read; each is asked for once."""

    def tell_log(self, asked: Asked, text: str | None, why: str | None = None) -> None:
        """Answer with the log, or with None and why it cannot be read."""

    def leave(self) -> None:
        """Tell that this host ends; what it claimed and did not start goes to others."""
