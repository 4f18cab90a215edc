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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brain_clusters.domain.agents import AgentSpec

# A group zygote costs some MB; one that has not forked for so long goes, and the next agent imports anew.
_IDLE_SECONDS = 600.0
_BASE = ""


@dataclass(slots=True)
class _Zygote:
    control: socket.socket
    used_at: float


def zygote_key(spec: AgentSpec) -> str:
    """Return the handler whose zygote forks ``spec``, "" for the base zygote: agents on gevent import it themselves."""
    return spec.handler if spec.handler is not None and spec.pool != "gevent" else _BASE


class Nursery:
    """Forks agents through a base zygote and one zygote per handler.

    config: the AgentConfig as JSON-ready data; environ: the zygotes' environment, without credentials of ours.
    Reports arrive on ``fileno`` (see ``agent.zygote`` for their form); read them with ``reports``.
    """

    def __init__(self, config: Mapping[str, Any], environ: Mapping[str, str], log: Path) -> None:
        self._config = dict(config)
        self._environ = dict(environ)
        self._log = log
        self._zygotes: dict[str, _Zygote] = {}
        self._base: subprocess.Popen[bytes] | None = None
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
        key = zygote_key(spec)
        zygote = self._zygote_for(key)
        zygote.used_at = time.monotonic()
        self._tell(key, {"do": "spawn", "spec": spec.as_dict()})

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

    def bury_dead(self, control: Any) -> str | None:
        """Drop the zygote whose control socket became readable: zygotes never write to it, so it ended.

        Returns the handler that it served, "" for the base zygote.
        """
        for key, zygote in list(self._zygotes.items()):
            if zygote.control is control:
                self.forget(key)
                if key == _BASE and self._base is not None:
                    self._base.wait()
                return key
        return None

    def retire_idle(self) -> None:
        """End group zygotes that nobody has used for long. Their agents live on."""
        now = time.monotonic()
        for key, zygote in list(self._zygotes.items()):
            if key != _BASE and now - zygote.used_at > _IDLE_SECONDS:
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

    def _zygote_for(self, key: str) -> _Zygote:
        if key not in self._zygotes:
            self.warm()
            if key != _BASE:
                self._start_group(key)
        return self._zygotes[key]

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

    def _start_group(self, key: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._tell(_BASE, {"do": "zygote", "key": key, "handler": key}, [theirs.fileno()])
        self._add(key, ours)

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


def _zygote_command(control: int, report: int) -> list[str]:
    return [sys.executable, "-P", "-m", "brain_clusters.agent.zygote", str(control), str(report)]
