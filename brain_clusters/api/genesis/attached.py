"""What a request to the Genesis service has at hand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import flask

from brain_clusters.blueprints.validation import check
from brain_clusters.domain.specs import Blueprint
from brain_clusters.errors import InvalidInput, TemporaryError
from brain_clusters.genesis.remote.keeper import Keeper
from brain_clusters.genesis.remote.keepers import Keepers
from brain_clusters.services.idempotency import Key
from brain_clusters.services.requests import Schema

_NAME = "genesis"
_ANSWERS_KEPT = 500
_FIRST_ANSWER_SECONDS = 30.0

# An id is part of the names of files, containers and pods.
ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


class Answers:
    """The last answers by Idempotency-Key. In memory: after a restart, repeated calls still change nothing twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, Future[Any]]] = OrderedDict()

    def once(self, key: Key | None, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns, or returned when this very request came first, be it that it still is done."""
        if key is None:
            return work()
        future: Future[Any] = Future()
        with self._lock:
            fingerprint, first = self._kept.setdefault(key.text, (key.fingerprint, future))
            if len(self._kept) > _ANSWERS_KEPT:
                self._kept.popitem(last=False)
        if fingerprint != key.fingerprint:
            raise InvalidInput("this Idempotency-Key was used for another request")
        if first is not future:
            return _result(first)
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - it is raised to the caller
            with self._lock:
                self._kept.pop(key.text, None)  # what failed is tried again
            future.set_exception(exc)
        return future.result()


def _result(first: Future[Any]) -> Any:
    try:
        return first.result(_FIRST_ANSWER_SECONDS)
    except TimeoutError:
        raise TemporaryError("the first request with this Idempotency-Key is still being answered") from None


@dataclass(frozen=True, slots=True)
class Attached:
    """driver: its name. config: what agents are given that their host does not say. waits: places of long polls.

    spawned: the keeper of agents that were spawned by the dialect, None without a Redis; blueprints: what of, by id.
    """

    driver: str
    keys: tuple[str, ...]
    config: Mapping[str, Any]
    keepers: Keepers
    waits: threading.Semaphore
    spawned: Keeper | None
    blueprints: Mapping[str, Blueprint]
    answers: Answers


def attach(app: flask.Flask, attached: Attached) -> None:
    """Give ``app`` its collaborators."""
    app.extensions[_NAME] = attached


def attached() -> Attached:
    """Return the collaborators of the application that answers."""
    found = flask.current_app.extensions[_NAME]
    assert isinstance(found, Attached)  # noqa: S101 - attach() put it there
    return found


def checked(body: Any, schema: Schema) -> dict[str, Any]:
    """Return a body with its defaults; raise InvalidInput with every fault."""
    found, faults = check(body, schema)
    if faults:
        raise InvalidInput("the body is not valid", faults)
    return found
