"""Coroutines of handlers: all of one process run on one event loop, which lives in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.flight import Reason

_starting = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def loop() -> asyncio.AbstractEventLoop:
    """Return this process's loop. It starts with its first use, so after the fork, and ends with the process."""
    with _starting:
        found = _loops.get(os.getpid())
        if found is None:
            found = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=found.run_forever, name="coroutines", daemon=True).start()
        return found


def run(coroutine: Coroutine[Any, Any, Any], context: JobContext) -> Any:
    """Return what ``coroutine`` returns; the deadline and a cancellation of the job cancel it."""
    where = loop()
    stopper = _TaskStopper(where, coroutine)
    with nullcontext() if context.flight is None else context.flight.stopped_by(stopper):
        try:
            value, left = asyncio.run_coroutine_threadsafe(stopper.main(), where).result()
        except CancelledError:
            context.raise_if_cancelled()
            raise
    if left is not None:
        raise left
    return value


class _TaskStopper:
    """Cancels the task of one coroutine."""

    patience = 0.0

    def __init__(self, where: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._loop = where
        self._coroutine = coroutine
        self._task: asyncio.Task[Any] | None = None
        self._stopped = False

    async def main(self) -> tuple[Any, SystemExit | KeyboardInterrupt | None]:
        """Return the coroutine's value, or what would have ended the loop and with it all other coroutines."""
        self._task = asyncio.current_task()
        if self._stopped:
            self._coroutine.close()
            raise asyncio.CancelledError
        try:
            return await self._coroutine, None
        except (SystemExit, KeyboardInterrupt) as exc:
            return None, exc

    def ask(self) -> None:
        """The handler may look at ``context.cancelled``."""

    def stop(self, _reason: Reason) -> None:
        """Cancel the task."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
