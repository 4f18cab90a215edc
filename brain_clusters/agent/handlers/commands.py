"""``command: [argv]``: programs that do a job: the payload as JSON on their input, JSON or text from their output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import nullcontext, suppress
from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError, Retry
from brain_clusters.agent.flight import Reason
from brain_clusters.agent.handlers.functions import Handler
from brain_clusters.config import user_environment

# More than that from a command is cut: it has to fit into Redis and into an answer of the API.
OUTPUT_LIMIT_BYTES = 1024 * 1024
_ERROR_TAIL_BYTES = 4096


def handler(argv: tuple[str, ...]) -> Handler:
    """Return a handler that runs ``argv``, never by a shell. Exit code 75 asks for another attempt."""

    def run(payload: Any, context: JobContext) -> Any:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(json.dumps(payload).encode())
            given.seek(0)
            code = _Program(argv, (given, out, err), _environment(context)).run(context)
            if code == os.EX_TEMPFAIL:
                raise Retry(message=f"{argv[0]} asks for another attempt: {_tail(err)}")
            if code != 0:
                raise HandlerError(f"{argv[0]} {_how_it_ended(code)}: {_tail(err)}")
            return _parsed(_head(out))

    return run


def _environment(context: JobContext) -> dict[str, str]:
    told = {
        "BRAIN_JOB_ID": context.job_id,
        "BRAIN_JOB_ATTEMPT": str(context.attempt),
        "BRAIN_CLUSTER_ID": context.cluster_id,
        "BRAIN_GROUP": context.group,
    }
    if context.deadline is not None:
        told["BRAIN_JOB_DEADLINE"] = f"{context.deadline:.3f}"
    if context.capability is not None:
        told["BRAIN_JOB_CAPABILITY"] = context.capability
    return user_environment() | told


class _Program:
    """One run of a program. Asked to end it gets SIGTERM, and SIGKILL when its time is up, with all its children."""

    patience = 2.0

    def __init__(self, argv: tuple[str, ...], streams: tuple[Any, Any, Any], environ: dict[str, str]) -> None:
        self._argv, self._streams, self._environ = argv, streams, environ
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._last_signal: signal.Signals | None = None

    def run(self, context: JobContext) -> int:
        """Run it to its end and return its code."""
        with nullcontext() if context.flight is None else context.flight.stopped_by(self):
            process = self._start()
            try:
                code = process.wait()
            finally:
                self.stop()
                process.wait()
            context.raise_if_cancelled()
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        given, out, err = self._streams
        try:
            process = subprocess.Popen(
                self._argv, stdin=given, stdout=out, stderr=err, env=self._environ, process_group=0
            )
        except OSError as exc:
            raise HandlerError(f"{self._argv[0]} cannot be started: {exc.strerror}") from exc
        with self._lock:
            self._process = process
            if self._last_signal is not None:  # it was to end before it began
                self._send(self._last_signal)
        return process

    def ask(self) -> None:
        """Send SIGTERM to all of its process group."""
        self._end_by(signal.SIGTERM)

    def stop(self, _reason: Reason | None = None) -> None:
        """Kill all of its process group."""
        self._end_by(signal.SIGKILL)

    def _end_by(self, number: signal.Signals) -> None:
        with self._lock:
            self._last_signal = number
            self._send(number)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _how_it_ended(code: int) -> str:
    return f"exited with {code}" if code > 0 else f"was ended by signal {-code}"


def _head(stream: Any) -> bytes:
    size = stream.seek(0, os.SEEK_END)
    if size > OUTPUT_LIMIT_BYTES:
        raise HandlerError(f"the command wrote {size} bytes; the limit is {OUTPUT_LIMIT_BYTES}")
    stream.seek(0)
    found: bytes = stream.read()
    return found


def _tail(stream: Any) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _ERROR_TAIL_BYTES))
    return str(stream.read().decode(errors="replace").strip()) or "(nothing on standard error)"


def _parsed(output: bytes) -> Any:
    """Return the JSON that ``output`` is, or its text."""
    text = output.decode(errors="replace")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text.rstrip("\n")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
