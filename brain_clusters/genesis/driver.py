"""The contract of a driver: what starts agents on one engine, and tells what became of them.

A third party's driver is a factory ``(Kit) -> Driver`` behind an entry point of the group ``brain_clusters.drivers``;
docs/drivers.md tells how to write one, and ``brain_clusters.genesis.contract`` has the tests that it must pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from brain_clusters.config import Settings
from brain_clusters.domain.agents import AgentSpec, Loads


class Phase(StrEnum):
    """How far an agent is on its engine."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an engine shows of one agent.

    handle: how the engine knows it, as plain JSON. ready: whether it consumes, where the engine can tell; None where
    its beats have to be waited for. reason: why it still is starting, or how it ended, for a person. code: what it
    exited with, negative for a signal; None when that is not known or it never ran.
    """

    agent_id: str
    phase: Phase
    handle: Mapping[str, Any] = field(default_factory=dict)
    ready: bool | None = None
    reason: str | None = None
    code: int | None = None


class Words(Protocol):
    """A way to reach agents that their engine cannot reach: they look for the word with each beat."""

    def tell(self, agent_ids: Sequence[str], *, drain: bool) -> None:
        """Tell agents to drain, or to go on. Raises TemporaryError."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What a driver is made with.

    agent: what every agent is given with its spec, an ``agent.config.AgentConfig`` as JSON-ready data. environ: the
    variables of this host, without those of ours. installation: asks what tells this installation from others that use
    the same engine; raises TemporaryError.
    """

    settings: Settings
    host_id: str
    agent: Mapping[str, Any]
    environ: Mapping[str, str]
    words: Words
    installation: Callable[[], str] = lambda: ""


class Driver(ABC):
    """Starts and ends agents on one engine, in batches, for one host. Used from one thread.

    Every call may be repeated, and a call that failed is: starting is idempotent by agent_id, and to stop or to remove
    what is gone succeeds. Calls return at once; what comes of them is told by ``changes``. Any call may raise
    TemporaryError while the engine does not answer; then it may or may not have had its effect.
    """

    @abstractmethod
    def open(self) -> None:
        """Connect and begin to watch. Raises PermanentError, with what to do, when that can never work."""

    @abstractmethod
    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Begin to start agents; those that are there already, ENDED ones too, are left as they are.

        Return what is known of all by then.

        One that the engine refuses is ENDED, with the reason; others are not held up by it.
        """

    @abstractmethod
    def drain(self, agent_ids: Sequence[str]) -> None:
        """Let agents finish what they do and leave. ``resume`` undoes it."""

    @abstractmethod
    def resume(self, agent_ids: Sequence[str]) -> None:
        """Let agents that were to drain go on."""

    @abstractmethod
    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Have agents finish what they do and end, for good; ``now`` kills them, with all that they started."""

    @abstractmethod
    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """Return those of ``agent_ids`` that the engine has, or all of this host's; ENDED ones too, until removed."""

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when ``changes`` has something to tell."""

    @abstractmethod
    def changes(self) -> Sequence[Sighting]:
        """Return the agents that are not as they were last told, an end never missed. Also those of earlier hosts."""

    @abstractmethod
    def remove(self, agent_ids: Sequence[str]) -> None:
        """Remove what ended agents leave on the engine. What they held has been returned to its queue by then."""

    @abstractmethod
    def logs(self, agent_id: str, lines: int) -> str:
        """Return the last lines that an agent wrote, also of one that ended and is not removed; "" for none."""

    def upkeep(self, warm: Sequence[Loads] | None) -> Mapping[str, int]:  # noqa: ARG002 - for those that override it
        """Do what has to be done now and then; called every few seconds.

        warm: what is to be kept imported for agents to come; None leaves that as it is. Returns the bytes of memory
        that this takes, by ``Loads.key``. An engine that cannot share imports does nothing.
        """
        return {}

    @abstractmethod
    def close(self) -> None:
        """Stop to watch and disconnect. Agents live on."""


Factory = Callable[[Kit], Driver]
