"""What a request has at hand: the process's collaborators, and the answer in JSON."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import flask

from brain_clusters.api import release
from brain_clusters.broker.limiting import Limiter
from brain_clusters.errors import TemporaryError
from brain_clusters.services.control import Control
from brain_clusters.services.monitoring import Monitor
from brain_clusters.services.tokens import Tokens

if TYPE_CHECKING:
    from brain_clusters.api.streaming.hub import Hub

_NAME = "brain"
# Bodies beyond the usual limit that are worked on at once: each may take twenty times its size in memory.
_LARGE_BODIES = 2
_LARGE_BODY_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class _Attached:
    control: Control
    commit: str | None
    waits: threading.Semaphore
    batches: threading.Semaphore
    monitor: Monitor
    hub: Hub
    limiter: Limiter
    tokens: Tokens | None


def attach(app: flask.Flask, control: Control, hub: Hub) -> None:
    """Give ``app`` its collaborators, and note the commit that it was started from."""
    # A wait holds a thread. A quarter of them never waits, so that the API always answers.
    threads = control.settings.api_threads
    app.extensions[_NAME] = _Attached(
        control,
        release.commit(control.settings.commit),
        threading.Semaphore(max(1, threads * 3 // 4)),
        threading.Semaphore(_LARGE_BODIES),
        Monitor(control),
        hub,
        Limiter(control.broker.redis),
        Tokens(control.settings) if control.settings.jwt_issuer else None,
    )


def control() -> Control:
    """Return the collaborators of the application that answers."""
    return _attached().control


def commit() -> str | None:
    """Return the commit that the application which answers was started from, where that is known."""
    return _attached().commit


def monitor() -> Monitor:
    """Return what gathers the figures for monitors."""
    return _attached().monitor


def waits() -> threading.Semaphore:
    """Return the semaphore that every ``Prefer: wait`` takes a place of."""
    return _attached().waits


def hub() -> Hub:
    """Return the hub of those who listen to events."""
    return _attached().hub


def limiter() -> Limiter:
    """Return what counts requests."""
    return _attached().limiter


def tokens() -> Tokens | None:
    """Return what reads the tokens of an issuer; None where none is set."""
    return _attached().tokens


@contextmanager
def place_for_large_body() -> Iterator[None]:
    """Hold one of the few places for large bodies; raise TemporaryError when none becomes free in time."""
    places = _attached().batches
    if not places.acquire(timeout=_LARGE_BODY_PATIENCE_SECONDS):
        raise TemporaryError("many large requests are being answered; try again in a moment")
    try:
        yield
    finally:
        places.release()


def hub_of(app: flask.Flask) -> Hub:
    """Return the hub of ``app``, for whoever closes it."""
    return _attached(app).hub


def _attached(app: flask.Flask | None = None) -> _Attached:
    found = (app or flask.current_app).extensions[_NAME]
    assert isinstance(found, _Attached)  # noqa: S101 - attach() put it there
    return found


def answer(
    data: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, mimetype: str = "application/json"
) -> flask.Response:
    """Return ``data`` as JSON. Times are ISO 8601 in UTC."""
    return flask.Response(encoded(data) + "\n", status, dict(headers or {}), mimetype=mimetype)


def tagged(tag: str | None) -> dict[str, str]:
    """Return the headers that tell the tag of what is answered, if it has one."""
    return {} if tag is None else {"ETag": f'"{tag}"'}


def encoded(data: Any) -> str:
    """Return ``data`` as the text of JSON, in one line."""
    try:
        return json.dumps(data, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(data), default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _without_nan(data: Any) -> Any:
    """Return ``data`` with null for NaN and infinity, which a handler's result may hold and JSON may not."""
    if isinstance(data, Mapping):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
