"""Waiting for what was begun, with a line that tells how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import click

from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.words import plain, span
from brain_clusters.errors import BrainError, PermanentError, TemporaryError

FINISHED = ("succeeded", "failed")
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5


class Line:
    """One line on the error output that is written over, on a terminal; nothing where there is none."""

    def __init__(self) -> None:
        self._shows, self._began = sys.stderr.isatty(), time.monotonic()

    def show(self, text: str) -> None:
        """Put ``text`` in place of what was there."""
        if self._shows:
            click.echo(f"\r\x1b[K{plain(text)} ({span(time.monotonic() - self._began)})", nl=False, err=True)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shows:
            click.echo("\r\x1b[K", nl=False, err=True)


def poll(read: Callable[[], Any], done: Callable[[Any], bool], tell: Callable[[Any], str], timeout: float) -> Any:
    """Ask until it is done and return the last answer, done or not. A moment without the API is waited over."""
    deadline, pause, found = time.monotonic() + timeout, _FIRST_PAUSE_SECONDS, None
    trouble: BrainError | None = None
    with Line() as line:
        while True:
            try:
                found, trouble = read(), None
                line.show(tell(found))
                if done(found):
                    return found
            except TemporaryError as exc:
                trouble = exc
                line.show("the API does not answer; waiting for it")
            if time.monotonic() >= deadline:
                if trouble is not None:
                    raise trouble
                return found
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def wait_for_operation(api: ApiClient, operation: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Wait for the end of an operation and return it; raise PermanentError when it fails, or is not done in time."""
    cluster, kind = operation["cluster_id"], operation["kind"]

    def read() -> Any:
        return api.get(path_of("operations", operation["id"])), api.get(path_of("clusters", cluster))

    def tell(found: Any) -> str:
        _, seen = found
        return f"{kind} {cluster}: {seen['status']}, {seen['current_workers']} of {seen['target_workers']} agents"

    ended, _ = poll(read, lambda found: found[0]["status"] in FINISHED, tell, timeout)
    if ended["status"] == "failed":
        why = (ended["error"] or {}).get("message") or "it does not say why"
        raise PermanentError(f"{kind} {cluster} failed: {why}. 'brain-clusters describe cluster {cluster}' tells more")
    if ended["status"] not in FINISHED:
        raise PermanentError(
            f"{kind} {cluster} is not done after {span(timeout)} and goes on; "
            f"'brain-clusters get operation {ended['id']}' tells how it stands"
        )
    done: dict[str, Any] = ended
    return done
