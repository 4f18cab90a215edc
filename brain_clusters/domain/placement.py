"""Which host takes which agent, and why none does. Pure.

Agents are looked at in the order in which they were asked for, and each goes where least would be used of what a host
has, by what is scarcest there: so hosts fill evenly, each by its size. What does not fit anywhere is passed by those
behind it that do. One that is passed for LONG_SECONDS has a host kept for it, the one that lacks least: no other agent
with stated resources is placed there until it fits. Nobody is moved for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What another host should take is left to it for so long: a host looks at once when it is told, and each second.
YIELD_SECONDS = 2.0
LONG_SECONDS = 60.0
# Sums of floats: ten agents of 0.1 cores fit on one core.
_LEEWAY = 1e-6
_GIB, _MIB = 1024**3, 1024**2


@dataclass(frozen=True, slots=True)
class Need:
    """An agent that waits for a host. cpu (cores), memory_bytes: 0 is not stated. waited: seconds."""

    agent_id: str
    cpu: float = 0.0
    memory_bytes: int = 0
    waited: float = 0.0

    @property
    def is_sized(self) -> bool:
        """Whether it states resources; else it takes up a place and no more."""
        return bool(self.cpu or self.memory_bytes)


@dataclass(slots=True)
class Room:
    """A host: what it has (cpus in cores, memory in bytes, None is unlimited), and what its agents use of it."""

    host_id: str
    capacity: int
    cpus: float | None = None
    memory_bytes: int | None = None
    agents: int = 0
    cpu_used: float = 0.0
    memory_used: int = 0

    def takes(self, need: Need) -> bool:
        """Whether there is room for ``need`` now. What is not stated always fits."""
        cpu = not need.cpu or self.cpus is None or self.cpu_used + need.cpu <= self.cpus + _LEEWAY
        memory = not need.memory_bytes or self.memory_bytes is None or need.memory_bytes <= self.memory_left
        return self.agents < self.capacity and cpu and memory

    def could_take(self, need: Need) -> bool:
        """Whether there would be room for ``need`` if it were alone."""
        return Room(self.host_id, self.capacity, self.cpus, self.memory_bytes).takes(need)

    @property
    def cpu_left(self) -> float:
        """Cores that are free; infinite where they are not limited."""
        return float("inf") if self.cpus is None else max(0.0, self.cpus - self.cpu_used)

    @property
    def memory_left(self) -> float:
        """Bytes that are free; infinite where they are not limited."""
        return float("inf") if self.memory_bytes is None else max(0, self.memory_bytes - self.memory_used)

    def load_with(self, need: Need) -> float:
        """Return the share of its scarcest resource that would be used with ``need``.

        Source: the dominant share of Ghodsi et al., "Dominant Resource Fairness" (2011), of a host and not of a user.
        """
        return max(
            (self.agents + 1) / self.capacity,
            (self.cpu_used + need.cpu) / self.cpus if self.cpus else 0.0,
            (self.memory_used + need.memory_bytes) / self.memory_bytes if self.memory_bytes else 0.0,
        )

    def lacks(self, need: Need) -> float:
        """Return the largest share of what ``need`` asks for that is not free here."""
        cpu = 1 - self.cpu_left / need.cpu if need.cpu else 0.0
        memory = 1 - self.memory_left / need.memory_bytes if need.memory_bytes else 0.0
        return max(cpu, memory)

    def add(self, need: Need) -> None:
        """Count ``need`` as one of its agents."""
        self.agents += 1
        self.cpu_used += need.cpu
        self.memory_used += need.memory_bytes


def taken_by(host_id: str, needs: Sequence[Need], rooms: Sequence[Room], passed: Sequence[Need] = ()) -> list[str]:
    """Return the agents of ``needs``, the oldest first, that a host is to take. rooms: all hosts; they are changed.

    Those that another host should take are among them once they have waited for YIELD_SECONDS: that host is slow, or
    ends. passed: those that have waited for LONG_SECONDS, the oldest first.
    """
    kept = _kept(passed, rooms)
    found = []
    for need in needs:
        fitting = [room for room in rooms if room.takes(need) and not (need.is_sized and room is kept)]
        if not fitting:
            continue
        best = min(fitting, key=lambda room: (room.load_with(need), room.host_id))
        if need.waited > YIELD_SECONDS:
            best = next((room for room in fitting if room.host_id == host_id), best)
        best.add(need)
        if best.host_id == host_id:
            found.append(need.agent_id)
    return found


def _kept(passed: Sequence[Need], rooms: Sequence[Room]) -> Room | None:
    """Return the host that is kept for the first of ``passed`` that fits nowhere and could."""
    for need in passed:
        able = [room for room in rooms if room.could_take(need)]
        if able and not any(room.takes(need) for room in able):
            return min(able, key=lambda room: (room.lacks(need), room.host_id))
    return None


def why_not(need: Need, driver: str, rooms: Sequence[Room]) -> str | None:
    """Return why no host of ``driver`` takes an agent, with what to do; None when one does. rooms: its hosts."""
    if not rooms:
        return f"no host of the driver {driver} runs: start one with brain-clusters host --driver {driver}"
    if any(room.takes(need) for room in rooms):
        return None
    asked = _amounts(need, need.cpu, need.memory_bytes)
    able = [room for room in rooms if room.could_take(need)]
    if not able:
        best = min(rooms, key=lambda room: Room(room.host_id, 1, room.cpus, room.memory_bytes).lacks(need))
        return (
            f"no host of the driver {driver} is large enough: it needs {asked}; the largest, {best.host_id}, has "
            f"{_amounts(need, best.cpus, best.memory_bytes)}"
        )
    places = [room for room in able if room.agents < room.capacity]
    if not places:
        full = sum(room.capacity for room in able)
        return (
            f"no host of the driver {driver} has room: all {full} places of {_hosts(able)} are taken; start another "
            "host, or raise BRAIN_HOST_CAPACITY"
        )
    best = min(places, key=lambda room: (room.lacks(need), room.host_id))
    return (
        f"no host of the driver {driver} has room: it needs {asked}; the "
        f"roomiest, {best.host_id}, has {_amounts(need, best.cpu_left, best.memory_left)} left"
    )


def _hosts(rooms: Sequence[Room]) -> str:
    return rooms[0].host_id if len(rooms) == 1 else f"{len(rooms)} hosts"


def _amounts(need: Need, cpu: float | None, memory_bytes: float | None) -> str:
    """Return amounts of what ``need`` states, in words."""
    words = []
    if need.cpu and cpu is not None:
        words.append("unlimited cores" if cpu == float("inf") else f"{round(cpu, 3):g} cores")
    if need.memory_bytes and memory_bytes is not None:
        words.append("unlimited memory" if memory_bytes == float("inf") else size(memory_bytes))
    return " and ".join(words)


def size(number: float) -> str:
    """Return bytes in words: in GiB from one on, else in MiB."""
    return f"{round(number / _GIB, 2):g} GiB" if number >= _GIB else f"{round(number / _MIB, 1):g} MiB"
