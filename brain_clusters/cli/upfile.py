"""What ``up`` leaves in the home for others: a lock while it runs, and a file that says who runs where."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from brain_clusters.processes import ProcessId

_NAME = "up.json"
_STEPS = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpFile:
    """A running ``up``: itself, its API, whether that was ready, and its children."""

    up: ProcessId
    api_url: str
    ready: bool = False
    children: Mapping[str, ProcessId] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Path) -> UpFile | None:
        """Return what the home says, true or outdated; None when it says nothing."""
        try:
            data = json.loads((home / _NAME).read_text())
            children = {name: ProcessId(**child) for name, child in data["children"].items()}
            return cls(up=ProcessId(**data["up"]), api_url=data["api_url"], ready=data["ready"], children=children)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def of_running(cls, home: Path) -> UpFile | None:
        """Return the file of an ``up`` that is alive, or None."""
        found = cls.read(home)
        return found if found and found.up.alive else None

    def write(self, home: Path) -> None:
        """Write the file in one step."""
        from brain_clusters.embedded import write_private  # here: all but 'up' and 'down' read this file only

        write_private(home / _NAME, json.dumps(asdict(self)))


@contextmanager
def only_one(home: Path) -> Iterator[bool]:
    """Yield whether we are the only ``up`` of this home; hold the lock and, at the end, take the file away."""
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            (home / _NAME).unlink(missing_ok=True)


def clear_left_over(home: Path, say: Callable[[str], None]) -> bool:
    """Stop what an ``up`` that was killed has left, in the order of an orderly stop; return whether there was any."""
    from brain_clusters.embedded import stop_left_over

    found = UpFile.read(home)
    left = {} if found is None else {name: child for name, child in found.children.items() if child.alive}
    for name, child in reversed(left.items()):
        say(f"stopping {name} that an ended 'up' left (pid {child.pid})")
        child.end(_STEPS)
    (home / _NAME).unlink(missing_ok=True)
    return stop_left_over(home, say) or bool(left)
