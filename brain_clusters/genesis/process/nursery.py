"""The zygotes of one host: started when they are needed, asked to fork agents, ended when idle for long."""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brain_clusters import skills
from brain_clusters.domain.agents import AgentSpec, Loads

# A group zygote costs some MB; one that has not forked for so long goes, and the next agent imports anew.
_IDLE_SECONDS = 600.0
# What could not be loaded is not tried again for so long only to keep it warm.
_REFUSED_SECONDS = 60.0
# Telling a process's share of memory means walking over its pages.
_MEMORY_SECONDS = 10.0
_BASE = ""


@dataclass(slots=True)
class _Zygote:
    """kept: it is not ended when idle. pid: once it has loaded. memory: its bytes, as of the last look."""

    control: socket.socket
    used_at: float
    kept: bool = False
    pid: int | None = None
    memory: int | None = None
    looked_at: float = 0.0


class Nursery:
    """Forks agents through a base zygote and one zygote for each handler, application, or set of skills.

    config: the AgentConfig as JSON-ready data; environ: the zygotes' environment, without credentials of ours.
    Reports arrive on ``fileno`` (see ``agent.zygote`` for their form); read them with ``reports``.
    """

    def __init__(self, config: Mapping[str, Any], environ: Mapping[str, str], log: Path) -> None:
        self._config = dict(config)
        self._environ = dict(environ)
        self._log = log
        self._zygotes: dict[str, _Zygote] = {}
        self._base: subprocess.Popen[bytes] | None = None
        self._refused: dict[str, float] = {}
        self._installed: dict[Loads, bool] = {}
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, kind)
        self._receiving.setblocking(False)
        os.set_inheritable(self._sending.fileno(), True)
        self._watch: Callable[[socket.socket], None] = lambda _: None
        self._unwatch: Callable[[socket.socket], None] = lambda _: None

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Have ``selector`` tell of reports (data "report") and of zygotes that died (data "zygote")."""
        selector.register(self._receiving, selectors.EVENT_READ, "report")
        self._watch = lambda control: selector.register(control, selectors.EVENT_READ, "zygote") and None
        self._unwatch = lambda control: selector.unregister(control) and None

    def warm(self) -> None:
        """Start the base zygote, so that the first agent does not wait for its imports."""
        if _BASE not in self._zygotes:
            self._start_base()

    def spawn(self, spec: AgentSpec) -> None:
        """Ask for a fork. The reports ``spawned`` and ``ready``, or ``unloadable`` and ``exited``, follow."""
        loads = self.loads_of(spec)
        zygote = self._zygote_for(loads)
        zygote.used_at = time.monotonic()
        self._tell(loads.key, {"do": "spawn", "spec": spec.as_dict()})

    def loads_of(self, spec: AgentSpec) -> Loads:
        """Return what is imported for ``spec`` before it is forked."""
        return self._present(Loads.of(spec))

    def keep(self, wanted: Sequence[Loads]) -> None:
        """Start the zygotes of ``wanted`` that are not there, and end none of them when it is idle."""
        wanted = [loads for loads in map(self._present, wanted) if loads.key != _BASE]
        keys = {loads.key for loads in wanted}
        for key, zygote in self._zygotes.items():
            if zygote.kept and key not in keys:
                zygote.kept, zygote.used_at = False, time.monotonic()
        for loads in wanted:
            if self._refused.get(loads.key, 0.0) <= time.monotonic():
                self._zygote_for(loads).kept = True

    def note_loaded(self, key: str, pid: int) -> None:
        """Note that a zygote has imported what it is for."""
        if key in self._zygotes:
            self._zygotes[key].pid = pid
        self._refused.pop(key, None)

    def memory(self) -> dict[str, int]:
        """Return the bytes of the zygotes that are kept, by key: their own, and their share of what they share."""
        found, now = {}, time.monotonic()
        for key, zygote in self._zygotes.items():
            if zygote.kept and zygote.pid is not None:
                if now - zygote.looked_at > _MEMORY_SECONDS:
                    zygote.looked_at, zygote.memory = now, proportional_bytes(zygote.pid)
                if zygote.memory is not None:
                    found[key] = zygote.memory
        return found

    def wait(self, seconds: float) -> bool:
        """Wait for a report for at most ``seconds``; return whether one came."""
        return bool(select.select([self._receiving], [], [], seconds)[0])

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports that have come."""
        found = []
        with suppress(BlockingIOError):
            while data := self._receiving.recv(65536):
                found.append(json.loads(data))
        return found

    def forget(self, key: str) -> None:
        """Drop the zygote of a handler that could not be loaded; the next spawn tries again."""
        zygote = self._zygotes.pop(key, None)
        if zygote is not None:
            self._unwatch(zygote.control)
            zygote.control.close()

    def refuse(self, key: str) -> None:
        """Drop the zygote of what could not be loaded, and do not try for a while to keep it; a spawn tries at once."""
        self._refused[key] = time.monotonic() + _REFUSED_SECONDS
        self.forget(key)

    def bury_dead(self, control: Any) -> str | None:
        """Drop the zygote whose control socket became readable: zygotes never write to it, so it ended.

        Returns the handler that it served, "" for the base zygote.
        """
        for key, zygote in list(self._zygotes.items()):
            if zygote.control is control:
                if zygote.pid is None and key != _BASE:
                    self.refuse(key)
                self.forget(key)
                if key == _BASE and self._base is not None:
                    self._base.wait()
                return key
        return None

    def retire_idle(self) -> None:
        """End group zygotes that nobody has used for long. Their agents live on."""
        now = time.monotonic()
        for key, zygote in list(self._zygotes.items()):
            if key != _BASE and not zygote.kept and now - zygote.used_at > _IDLE_SECONDS:
                self.forget(key)

    def close(self) -> None:
        """End every zygote. Agents live on."""
        for key in list(self._zygotes):
            self.forget(key)
        if self._base is not None:
            try:
                self._base.wait(5)
            except subprocess.TimeoutExpired:
                self._base.kill()
                self._base.wait()
        self._receiving.close()
        self._sending.close()

    def _present(self, loads: Loads) -> Loads:
        """Return ``loads``, or nothing where it would only be skills and none of them is installed."""
        if not loads.skills or loads.llm:
            return loads
        if loads not in self._installed:
            path = (*sys.path, *self._config.get("handler_path", ()))
            self._installed[loads] = skills.any_installed(loads.skills, path)
        return loads if self._installed[loads] else Loads(environment=loads.environment)

    def _zygote_for(self, loads: Loads) -> _Zygote:
        if loads.key not in self._zygotes:
            self.warm()
            if loads.key != _BASE:
                self._start_group(loads)
        return self._zygotes[loads.key]

    def _start_base(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self._base = subprocess.Popen(
                _zygote_command(theirs.fileno(), self._sending.fileno()),
                pass_fds=(theirs.fileno(), self._sending.fileno()),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._add(_BASE, ours)
        ours.sendall(json.dumps(self._config).encode() + b"\n")

    def _start_group(self, loads: Loads) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._tell(_BASE, {"do": "zygote", "key": loads.key, "loads": asdict(loads)}, [theirs.fileno()])
        self._add(loads.key, ours)

    def _add(self, key: str, control: socket.socket) -> None:
        self._zygotes[key] = _Zygote(control, time.monotonic())
        self._watch(control)

    def _tell(self, key: str, command: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        data = json.dumps(command).encode() + b"\n"
        # A zygote that died meanwhile is noticed by its socket; its agents are asked for again from there.
        with suppress(BrokenPipeError, ConnectionResetError):
            control = self._zygotes[key].control
            sent = socket.send_fds(control, [data], list(descriptors)) if descriptors else 0
            control.sendall(data[sent:])


def proportional_bytes(pid: int) -> int | None:
    """Return a process's proportional set size; None where the system does not tell, or it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


def _zygote_command(control: int, report: int) -> list[str]:
    return [sys.executable, "-P", "-m", "brain_clusters.agent.zygote", str(control), str(report)]
