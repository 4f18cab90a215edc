"""Log lines: JSON for programs, text for people; each with the ids of what is being done, as far as they are known.

Whoever begins something binds its ids (``bound``), and every line of that thread has them until it ends, whoever writes
it. A line that is about something else names it by ``extra={"cluster_id": ...}``. The text of a call is constant: it is
the line's ``event``, whatever is put in its place holders.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# The ids that lines may have, in the order in which they are shown.
IDS = ("operation_id", "cluster_id", "agent_id", "job_id", "host_id", "trace_id")
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "event", *IDS}
_bound: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039 - it is never changed in place


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Give every line of this thread these ids, of ``IDS``. None is "not known", and leaves what is bound already."""
    token = _bound.set({**_bound.get(), **{name: str(value) for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _bound.reset(token)


def configure(process: str, level: str, form: str = "auto", **ids: str | None) -> None:
    """Have everything logged to standard error. Call it once, when the process is to be what it is.

    process: what it is, such as "worker". form: json, text, or auto, which is text on a terminal. ids: of the process
    itself.
    """
    own = {name: value for name, value in ids.items() if value is not None}
    in_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process, own) if in_json else TextLines(own))
    logging.basicConfig(level=level, handlers=[handler])
    if in_json:
        _log_what_python_prints()


def _log_what_python_prints() -> None:
    """Have warnings and errors that nobody caught as lines like all others."""
    logging.captureWarnings(capture=True)
    log = logging.getLogger("python")

    def uncaught(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, exc, trace)
        else:
            log.critical("nobody caught an error", exc_info=(kind, exc, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            log.critical("nobody caught an error", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    sys.excepthook, threading.excepthook = uncaught, uncaught_in_thread


def ids_of(record: logging.LogRecord, own: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of a line: its own, else those of what is being done, else those of the process."""
    found = {**own, **_bound.get()}
    found |= {name: str(record.__dict__[name]) for name in IDS if record.__dict__.get(name) is not None}
    return {name: found[name] for name in IDS if name in found}


class JsonLines(logging.Formatter):
    """A line is one JSON object: time, level, process, logger, event, message, ids, and the traceback as exception."""

    def __init__(self, process: str, own: Mapping[str, str]) -> None:
        super().__init__()
        self._process, self._own = process, own

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{whole}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": str(record.__dict__.get("event", record.msg)),
            "message": message,
            **ids_of(record, self._own),
        }
        # What else the caller told by ``extra``.
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD and name not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A line for a person: time, level, logger, message, and those ids that the message does not name itself."""

    def __init__(self, own: Mapping[str, str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._own = own

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without its traceback."""
        return super().formatMessage(record) + _told(ids_of(record, self._own), record.message)


def _told(ids: Mapping[str, str], message: str) -> str:
    return "".join(f" {name.removesuffix('_id')}={value}" for name, value in ids.items() if value not in message)


def readable(line: str) -> str:
    """Return a line of JSON as a person reads it; what is none of ours, as it is."""
    try:
        found = json.loads(line)
        head = f"{found['time']} {found['level'].upper()} {found['logger']}: {found['message']}"
        told = _told({name: str(found[name]) for name in IDS if name in found}, head)
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
    return head + told + (f"\n{found['exception']}" if "exception" in found else "")
