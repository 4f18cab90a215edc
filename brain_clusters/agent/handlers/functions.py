"""``handler: module:function``: Python functions that do a job."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.errors import PermanentError

Handler = Callable[[Any, JobContext], Any]


def load(reference: str) -> Handler:
    """Import "package.module:function"; raise PermanentError that says what is missing."""
    module_name, _, function_name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as exc:
        raise PermanentError(f"handler {reference!r} cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        raise PermanentError(f"handler {reference!r} is a {type(found).__name__}, not a function")
    if inspect.iscoroutinefunction(found):
        raise PermanentError(f"handler {reference!r} is async; handlers are plain functions in this version")
    handler: Handler = found
    return handler
