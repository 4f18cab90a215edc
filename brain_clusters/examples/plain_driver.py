"""A driver to copy from: each agent is a plain process of this machine, run as containers and pods run theirs.

It is whole and keeps the contract; docs/drivers.md says how it is entered and tested. The driver ``process`` does the
same much faster, as it forks. Linux only: it waits for processes by their pidfd.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from brain_clusters.config import resolve
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.driver import Driver, Kit, Phase, Sighting
from brain_clusters.processes import tail

_AGENT = [sys.executable, "-P", "-m", "brain_clusters.agent.alone"]
# The process itself writes its pid into a file that it holds locked while it lives. So the next host finds it, even if
# this one is killed in the middle of a start, and its pid is nobody else's as long as the lock is held.
_WITH_PID = ["sh", "-c", 'echo $$ >"$0"; exec "$@"']


class PlainDriver(Driver):
    """Agents as processes of this machine, with an interpreter each."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._folder = kit.settings.home / "run" / kit.host_id
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._refused: dict[str, str] = {}
        self._told: dict[str, Sighting] = {}

    def open(self) -> None:
        """Make the folder. The agents that are in it are told by ``changes``."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def close(self) -> None:
        """Wait for no process any more."""
        for key in list(self._selector.get_map().values()):
            self._unwatch(key.data)
        for child in self._children.values():
            child.returncode = child.poll() or 0  # or Python warns of each that lives on
        self._selector.close()

    # --- what is done -------------------------------------------------------------------------------------------

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Start a process for each that there is none of, and was none."""
        for spec in specs:
            if self._sighting(spec.agent_id) is None:
                self._start(spec)
        return self._tell(self.sight([spec.agent_id for spec in specs]))

    def _start(self, spec: AgentSpec) -> None:
        try:
            own = {name: resolve(text, self._kit.environ) for name, text in spec.engine.environment.items()}
        except ValueError as exc:
            self._refused[spec.agent_id] = str(exc)
            return
        given = json.dumps({"spec": spec.as_dict(), "config": dict(self._kit.agent)})
        pid_file = self._file(spec.agent_id, "pid")
        with pid_file.open("w") as lock, self._file(spec.agent_id, "log").open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._children[spec.agent_id] = subprocess.Popen(
                [*_WITH_PID, str(pid_file), *_AGENT],
                env={**self._kit.environ, **own, "BRAIN_AGENT": given},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock.fileno()], start_new_session=True,
            )  # fmt: skip

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Leave word in Redis, where agents look for it with each beat."""
        self._kit.words.tell(agent_ids, drain=True)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Take the word back."""
        self._kit.words.tell(agent_ids, drain=False)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Send SIGTERM, or SIGKILL to the whole process group, which has what the agent started."""
        for sighting in self.sight(agent_ids):
            if sighting.phase is Phase.RUNNING:
                with suppress(ProcessLookupError):
                    pid = sighting.handle["pid"]
                    os.killpg(pid, signal.SIGKILL) if now else os.kill(pid, signal.SIGTERM)

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Delete the files of those that ended."""
        for sighting in self.sight(agent_ids):
            if sighting.phase is Phase.ENDED:
                for known in (self._children, self._refused, self._told):
                    known.pop(sighting.agent_id, None)
                for kind in ("pid", "log"):
                    self._file(sighting.agent_id, kind).unlink(missing_ok=True)

    # --- what is seen -------------------------------------------------------------------------------------------

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """Look at the files of ``agent_ids``, or at all in the folder."""
        if agent_ids is None:
            agent_ids = [*(path.stem for path in self._folder.glob("*.pid")), *self._refused]
        return [sighting for sighting in map(self._sighting, agent_ids) if sighting is not None]

    def _sighting(self, agent_id: str) -> Sighting | None:
        if agent_id in self._refused:
            return Sighting(agent_id, Phase.ENDED, reason=self._refused[agent_id])
        child = self._children.get(agent_id)
        if child is not None:
            handle, code = {"pid": child.pid}, child.poll()
            return Sighting(agent_id, Phase.RUNNING if code is None else Phase.ENDED, handle, code=code)
        pid_file = self._file(agent_id, "pid")
        pid = pid_file.read_text().strip() if pid_file.exists() else ""
        if _is_locked(pid_file):
            return Sighting(agent_id, Phase.RUNNING if pid else Phase.STARTING, {"pid": int(pid)} if pid else {})
        return Sighting(agent_id, Phase.ENDED, {"pid": int(pid)}) if pid else None

    def fileno(self) -> int:
        """Return the descriptor of the selector, which is readable when a process ended."""
        return self._selector.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Compare all that is there with what was told of it."""
        return self._tell([found for found in self.sight() if found != self._told.get(found.agent_id)])

    def _tell(self, sightings: Sequence[Sighting]) -> Sequence[Sighting]:
        for sighting in sightings:
            before = self._told.get(sighting.agent_id)
            self._told[sighting.agent_id] = sighting
            if sighting.phase is Phase.ENDED:
                self._unwatch(sighting.agent_id)
            elif sighting.phase is Phase.RUNNING and (before is None or before.phase is not Phase.RUNNING):
                self._watch(sighting)
        return sightings

    def logs(self, agent_id: str, lines: int) -> str:
        """Return the end of its file."""
        return tail(self._file(agent_id, "log"), lines)

    def _watch(self, sighting: Sighting) -> None:
        with suppress(ProcessLookupError):  # it ended just now, which the next look at its file tells
            self._selector.register(os.pidfd_open(sighting.handle["pid"]), selectors.EVENT_READ, sighting.agent_id)

    def _unwatch(self, agent_id: str) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data == agent_id:
                self._selector.unregister(key.fd)
                os.close(key.fd)

    def _file(self, agent_id: str, kind: str) -> Path:
        return self._folder / f"{agent_id}.{kind}"


def _is_locked(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
