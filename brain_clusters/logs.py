"""How every process of ours logs: lines for people on a terminal, and one JSON object a line everywhere else.

A line's text is constant; what differs is beside it. ``event`` is the text before anything was put into it, ``message``
the text that a person reads, and ids are members of their own: those that the text names (``operation=%s``), and those
that are bound to what runs just now. The standard library only: agents log before they have imported anything else.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

_NONE: Mapping[str, str] = MappingProxyType({})
_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=_NONE)
# A conversion of printf, and the word that it stands behind, if any. ``%%`` is none.
_CONVERSION = re.compile(r"(?:\b(?P<word>[a-z]+)=)?%(?:(?P<plain>%)|[-#0 +]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])")
_IDS = {"operation": "operation_id", "cluster": "cluster_id", "agent": "agent_id", "job": "job_id", "host": "host_id"}
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Put ``ids`` into every line that is logged meanwhile by this thread (or greenlet); None is left out."""
    given = {name: str(value) for name, value in ids.items() if value is not None}
    token = _bound.set({**_bound.get(), **given})
    try:
        yield
    finally:
        _bound.reset(token)


def set_up(form: str, level: str, *, stream: TextIO | None = None, **ids: str | None) -> None:
    """Have this process log to ``stream``, its standard error without one.

    form: json, text, or auto, which is text on a terminal. ids: of the process, in every line.
    """
    stream = stream or sys.stderr
    wanted = form if form != "auto" else "text" if stream.isatty() else "json"
    own = {name: value for name, value in ids.items() if value is not None}
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json(own) if wanted == "json" else Text(own))
    logging.basicConfig(level=level, handlers=[handler])


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, event, message, ids, and the traceback of an exception."""

    def __init__(self, own: Mapping[str, str]) -> None:
        super().__init__()
        self._own = dict(own)

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as a line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": str(record.msg),
            "message": record.getMessage(),
            **self._own,
            **_bound.get(),
            **_named(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        # ASCII: also what is no Unicode at all, as users' code logs anything, can be written then.
        return json.dumps(told, default=str)


class Text(logging.Formatter):
    """A line for people; the ids that are bound, at its end, where its text does not name them."""

    def __init__(self, own: Mapping[str, str]) -> None:
        super().__init__(_TEXT)
        self._own = dict(own)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, without a traceback."""
        named = _named(record)
        ids = " ".join(f"{name}={value}" for name, value in {**self._own, **_bound.get()}.items() if name not in named)
        return super().formatMessage(record) + (f"  [{ids}]" if ids else "")


def _named(record: logging.LogRecord) -> dict[str, str]:
    """Return the ids that the text of a line names."""
    if not isinstance(record.args, tuple) or not record.args:
        return {}
    found, place = {}, 0
    for conversion in _CONVERSION.finditer(str(record.msg)):
        if conversion["plain"]:
            continue
        name = _IDS.get(conversion["word"] or "")
        if name is not None and place < len(record.args):
            found[name] = str(record.args[place])
        place += 1
    return found
