"""``handler: module:function``: Python functions that do a job, of each kind that Python knows.

A plain function, a coroutine function, a generator or an asynchronous generator. What a generator yields is progress.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, Never

from brain_clusters.agent import coroutines
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.errors import PermanentError

Handler = Callable[[Any, JobContext], Any]

_YIELDS = (
    "yield a fraction from 0 to 1, (fraction, message), {'fraction': ..., 'message': ...}, {'result': ...} or None"
)


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
    return handler(found)


def handler(function: Callable[[Any, JobContext], Any]) -> Handler:
    """Return ``function`` as one that returns its result, whatever kind it is of."""

    @functools.wraps(function)
    def call(payload: Any, context: JobContext) -> Any:
        found: Any = function(payload, context)
        if inspect.isgenerator(found):
            return _generated(found, context)
        if inspect.iscoroutine(found):
            return coroutines.run(found, context)
        if inspect.isasyncgen(found):
            return coroutines.run(_generated_later(found, context), context)
        return found

    return call


def _generated(steps: Generator[Any, Never, Any], context: JobContext) -> Any:
    """Run a generator to its end; it ends at its next yield when the job has to."""
    outcome = _Outcome(context)
    try:
        while True:
            try:
                outcome.take(next(steps))
            except StopIteration as end:
                return outcome.result if end.value is None else end.value
            context.raise_if_cancelled()
    finally:
        steps.close()


async def _generated_later(steps: AsyncGenerator[Any, Never], context: JobContext) -> Any:
    outcome = _Outcome(context)
    try:
        async for step in steps:
            outcome.take(step)
            context.raise_if_cancelled()
        return outcome.result
    finally:
        await steps.aclose()


class _Outcome:
    """What a generator yielded."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self.result: Any = None

    def take(self, step: Any) -> None:
        """Report a step, or keep the result."""
        if isinstance(step, Mapping) and "result" in step:
            self.result = step["result"]
        elif step is not None:
            self._context.progress(*_progress(step))


def _progress(step: Any) -> tuple[float, str | None]:
    if isinstance(step, Mapping):
        step = (step.get("fraction"), step.get("message"))
    elif not isinstance(step, tuple):
        step = (step, None)
    if len(step) != 2 or isinstance(step[0], bool) or not isinstance(step[0], int | float):
        raise HandlerError(f"what a generator yields is progress, and {step!r:.100} is none: {_YIELDS}")
    return float(step[0]), step[1]
