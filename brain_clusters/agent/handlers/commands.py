"""``command: [argv]``: programs that do a job: the payload as JSON on their input, JSON or text from their output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers.functions import Handler
from brain_clusters.config import user_environment

# More than that from a command is cut: it has to fit into Redis and into an answer of the API.
OUTPUT_LIMIT_BYTES = 1024 * 1024
_ERROR_TAIL_BYTES = 4096


def handler(argv: tuple[str, ...], timeout_seconds: float | None) -> Handler:
    """Return a handler that runs ``argv``: the payload as JSON on its input, JSON or text from its output."""

    def run(payload: Any, context: JobContext) -> Any:
        environ = user_environment() | {
            "BRAIN_JOB_ID": context.job_id,
            "BRAIN_JOB_ATTEMPT": str(context.attempt),
            "BRAIN_CLUSTER_ID": context.cluster_id,
            "BRAIN_GROUP": context.group,
        }
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(json.dumps(payload).encode())
            given.seek(0)
            code = _run(argv, (given, out, err), environ, timeout_seconds)
            if code != 0:
                raise HandlerError(f"{argv[0]} {_how_it_ended(code)}: {_tail(err)}")
            return _parsed(_head(out))

    return run


def _run(
    argv: tuple[str, ...], streams: tuple[Any, Any, Any], environ: dict[str, str], timeout_seconds: float | None
) -> int:
    """Run ``argv`` to its end; end its whole process group when it takes too long."""
    try:
        process = subprocess.Popen(
            argv, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=environ, process_group=0
        )
    except OSError as exc:
        raise HandlerError(f"{argv[0]} cannot be started: {exc.strerror}") from exc
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        raise HandlerError(f"{argv[0]} took longer than {timeout_seconds:g} s and was ended") from None
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the command left behind, the command itself included."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
