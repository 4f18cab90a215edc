"""What the engine keeps of agents, and what it hands back of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

STARTING, IDLE, BUSY, GONE = "starting", "idle", "busy", "gone"


class Agent:
    """One agent. job: the index of its job while busy; run: counts its jobs, so that late events are known.

    service: the moving average of its service times, as its beats tell it; None before the first job ended.
    """

    __slots__ = ("asked", "draining", "idle_since", "job", "run", "service", "state")

    def __init__(self, asked: float) -> None:
        self.asked = asked
        self.idle_since = asked
        self.state = STARTING
        self.draining = False
        self.job = -1
        self.run = 0
        self.service: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of a run's picture."""

    at: float
    backlog: int
    agents: int
    desired: int


@dataclass(slots=True)
class Run:
    """What one run came to.

    waits: seconds from arrival or due time to the begin of the run that succeeded; of the ``undone`` jobs, to the end.
    overhead_seconds: of agents that a scaler needs beside those that serve the queue; not part of agent_seconds.
    """

    waits: list[float]
    agent_seconds: float
    overhead_seconds: float
    actions: int
    interrupted: int
    undone: int
    most_agents: int
    runs: list[int]
    ended: float
    samples: list[Sample] = field(default_factory=list)
