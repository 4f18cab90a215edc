"""The process that agents are forked from: it has imported everything, so that an agent starts in milliseconds.

The base zygote has imported Celery and us. For a group with a handler, an application, a model or installed skills it
forks a *group zygote*, which imports that once, so that every agent of the group starts as fast as an empty one. Run by
the host as ``python -m brain_clusters.agent.zygote CONTROL_FD REPORT_FD``.

Control is a stream socket with one JSON object a line; the first line on the base zygote's is the AgentConfig:
    {"do": "spawn", "spec": {...}}             fork an agent
    {"do": "zygote", "key": K, "loads": {...}} fork a group zygote; its control socket comes as a file descriptor
Reports go as datagrams to one socket that all descendants share:
    {"is": "loaded", "key": K, "pid": P}   {"is": "unloadable", "key": K, "error": E}
    {"is": "spawned", "agent": A, "pid": P, "started": S}   {"is": "ready", "agent": A}
    {"is": "exited", "pid": P, "code": C}      C is negative for a signal

No threads, no connections: both would not survive a fork. End of control (the host died) ends a zygote and leaves
its agents running; the next host finds them by their lock files.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from billiard.util import _run_after_forkers
from celery import Celery

from brain_clusters import tracing
from brain_clusters.agent import application, application_worker, pools, worker
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.handlers import Handler, for_spec, load, preload, skills
from brain_clusters.config import extend_environment
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import PermanentError
from brain_clusters.processes import DRAIN_SIGNAL, ProcessId, wake_pipe

# Modules that a Celery worker on Redis imports only when it starts; imported here, children share their pages.
PRELOAD = (
    "celery.apps.worker", "celery.worker.consumer", "celery.worker.consumer.delayed_delivery",
    "celery.worker.components", "celery.worker.autoscale", "celery.worker.strategy", "celery.worker.pidbox",
    "celery.worker.heartbeat", "celery.worker.control", "celery.worker.loops", "celery.concurrency.solo",
    "celery.concurrency.thread", "celery.app.control", "celery.app.events",
    "celery.events.dispatcher", "celery.backends.redis", "celery.fixups.django", "kombu.pidbox", "kombu.matcher",
    "kombu.transport.redis",
    "kombu.asynchronous.hub", "brain_clusters.broker.transport", "billiard.pool", "billiard.dummy",
    "concurrent.futures.thread", "encodings.idna", "secrets", "multiprocessing.util", "resource",
)  # fmt: skip

_SIGNALS = {
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
}  # fmt: skip
_EX_SOFTWARE = 70  # sysexits.h: an internal error


class Reports:
    """The socket to the host. A report that finds no host is dropped: the next host looks for itself."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(5.0)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def send(self, **report: Any) -> None:
        """Send one report."""
        with suppress(OSError):
            self._socket.send(json.dumps(report).encode())


class Zygote:
    """Serves one control socket until it ends."""

    def __init__(self, control: socket.socket, reports: Reports) -> None:
        self._control = control
        self._reports = reports
        self._buffer = b""
        self._descriptors: list[int] = []
        self._handler: Handler | None = None
        self._application: Celery | None = None
        self._wake_read, self._wake_write = wake_pipe()

    def prepare(self) -> None:
        """Read the configuration, import all that agents need, and make the app."""
        while b"\n" not in self._buffer:
            if not self._receive():
                sys.exit(0)
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._config = AgentConfig.from_dict(json.loads(line))
        # At the end: a module of the user's must not take the place of one of ours or of Python's.
        sys.path.extend(self._config.handler_path)
        for module in PRELOAD:
            importlib.import_module(module)
        skills.installed()
        tracing.preload()
        self._app, self._runner = worker.prepare_app(self._config)
        # Objects that live on are moved out of the collector's sight, or its marks would unshare their pages.
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Answer commands and reap children until the host closes control."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What is in the buffer came with the configuration, or before the fork of this group zygote.
        self._take_commands()
        while True:
            waits: list[Any] = [self._control, self._wake_read]
            readable, _, _ = select.select(waits, [], [])
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._control in readable:
                if not self._receive():
                    return
                self._take_commands()

    def _receive(self) -> bool:
        """Read what came on control, descriptors included; return False at its end."""
        data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 16)
        self._buffer += data
        self._descriptors += descriptors
        return bool(data)

    def _take_commands(self) -> None:
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            command = json.loads(line)
            if command["do"] == "spawn":
                self._spawn(AgentSpec.from_dict(command["spec"]))
            else:
                self._fork_group_zygote(command, self._descriptors.pop(0))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reports.send(**{"is": "exited", "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _spawn(self, spec: AgentSpec) -> None:
        pid = self._fork()
        if pid:
            identity = ProcessId.of(pid)
            started = identity.started if identity else ""
            self._reports.send(**{"is": "spawned", "agent": spec.agent_id, "pid": pid, "started": started})
            return
        self._become(lambda: self._be_agent(spec))

    def _be_agent(self, spec: AgentSpec) -> int:
        log = os.open(
            Path(self._config.log_dir) / f"{spec.agent_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        if spec.pool == "gevent":
            self._exec(spec)

        def tell() -> None:
            self._reports.send(**{"is": "ready", "agent": spec.agent_id})

        if self._application is not None:
            return application_worker.run(self._application, spec, self._config, tell)
        handler = self._handler or for_spec(spec, self._config)
        return worker.run(self._app, self._runner, spec, handler, self._config, tell)

    def _exec(self, spec: AgentSpec) -> NoReturn:
        """Go on as an interpreter of its own, with the same pid: gevent has to come before all that is imported."""
        pools.refuse_missing_gevent()
        with tempfile.TemporaryFile("w", encoding="utf-8") as given:
            json.dump({"spec": spec.as_dict(), "config": asdict(self._config)}, given)
            given.flush()
            descriptors = (given.fileno(), self._reports.fileno())
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            os.execv(sys.executable, [sys.executable, "-P", "-m", "brain_clusters.agent", *map(str, descriptors)])  # noqa: S606

    def _fork_group_zygote(self, command: dict[str, Any], descriptor: int) -> None:
        if self._fork():
            os.close(descriptor)
            return
        self._become(lambda: self._be_group_zygote(command, descriptor))

    def _be_group_zygote(self, command: dict[str, Any], descriptor: int) -> int:
        self._control = socket.socket(fileno=descriptor)
        self._buffer, self._descriptors = b"", []
        self._wake_read, self._wake_write = wake_pipe()
        try:
            self._load(Loads.from_dict(command["loads"]))
        except PermanentError as exc:
            self._reports.send(**{"is": "unloadable", "key": command["key"], "error": str(exc)})
            return 1
        gc.collect()
        gc.freeze()
        self._reports.send(**{"is": "loaded", "key": command["key"], "pid": os.getpid()})
        self.serve()
        return 0

    def _load(self, loads: Loads) -> None:
        try:
            extend_environment(loads.environment)
        except ValueError as exc:
            raise PermanentError(f"the group's environment: {exc}") from None
        if loads.app is not None:
            self._application = application.load(loads, self._config.redis_url)
        elif loads.handler is not None:
            self._handler = load(loads.handler)
        else:
            preload(loads)

    def _fork(self) -> int:
        """Fork; in the child no signal handler of the parent ever runs, and the drain signal waits for the agent."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return pid
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.setsid()
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS - {DRAIN_SIGNAL})
        _run_after_forkers()  # billiard's own hooks, which os.fork does not know
        return 0

    def _become(self, run: Any) -> NoReturn:
        """Run the child's part and leave by os._exit: the zygote's own clean-up is not the child's."""
        code = _EX_SOFTWARE
        try:
            code = run()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        except PermanentError as exc:
            code = os.EX_CONFIG
            sys.stderr.write(f"{exc}\n")
        except BaseException:  # noqa: BLE001 - a child must never return into the zygote's loop
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def main(control_fd: int, report_fd: int) -> None:
    """Be the base zygote."""
    zygote = Zygote(socket.socket(fileno=control_fd), Reports(report_fd))
    zygote.prepare()
    zygote.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
