"""Requests to the API: over kept connections, and again where that is safe."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from brain_clusters.client.errors import ApiError, Unreachable

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
# Answers that tell to come again: of a server that waits for its own, and of one that still answers the first request.
_AGAIN = (502, 503, 504)
_ANOTHER = "something answers that is not the API of BRAiN Clusters"


class Answer(NamedTuple):
    """What the API answered. json: None without a body."""

    status: int
    headers: Message
    json: Any


class Rest:
    """Sends JSON and returns JSON. Thread-safe: each thread has a connection of its own.

    timeout: the seconds that one request, with all its repetitions, may take.
    """

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL such as http://127.0.0.1:8080")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._address, self._root = (parts.hostname, parts.port), parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._threads = threading.local()

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``."""
        return self._patiently("GET", path, None, {})

    def post(self, path: str, body: Any) -> Any:
        """Post ``body`` and return the answer's JSON. However often it is sent, it is done once."""
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        own = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        return self._patiently("POST", path, data, own)

    @contextmanager
    def stream(self, path: str, headers: dict[str, str], silence: float) -> Iterator[Iterable[bytes]]:
        """Yield the lines at ``path``, over a connection of its own. silence: the seconds without a byte to bear.

        Raises ApiError for a refusal, and OSError when there is no answer or one that says to come again.
        """
        connection = self._kind(*self._address, timeout=silence)
        try:
            connection.request("GET", self._root + path, None, {**self._headers, **headers})
            answer = connection.getresponse()
            if answer.status in _AGAIN:
                raise ConnectionError(f"the API answered {answer.status}")
            if answer.status >= 400:
                raise _refusal(answer.status, json.loads(answer.read()))
            yield answer
        finally:
            connection.close()

    def close(self) -> None:
        """Close this thread's connection."""
        found = self._threads.__dict__.pop("connection", None)
        if found is not None:
            found.close()

    def _patiently(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        deadline, pause = time.monotonic() + self._timeout, _FIRST_PAUSE_SECONDS
        while True:
            asked_for = 0.0
            try:
                status, answered, found = self.once(method, path, data, headers, deadline - time.monotonic())
                told = answered.get("Retry-After")
                if status < 400:
                    return found
                failure: Exception = _refusal(status, found)
                if status not in _AGAIN and not (status == 409 and told is not None):
                    raise failure
                asked_for = float(told) if told is not None and told.isdigit() else 0.0
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self.close()
                failure = Unreachable(f"the API at {self._address[0]}:{self._address[1]} does not answer: {exc!r}")
                failure.__cause__ = exc
            wait = max(asked_for, pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that clients do not come at once
            if time.monotonic() + wait >= deadline:
                raise failure
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def once(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], timeout: float) -> Answer:
        """Send one request and return its answer, whatever that is. timeout: seconds without a word.

        Raises OSError or HTTPException when there is none, ValueError when it is no JSON.
        """
        connection = self._connection(max(0.1, timeout))
        connection.request(method, self._root + path, data, {**self._headers, **headers})
        answer = connection.getresponse()
        text = answer.read()
        if 300 <= answer.status < 400:  # mostly a proxy that wants https: a key is sent there by who is told to, only
            raise ValueError(f"it leads to {answer.getheader('Location', 'somewhere else')}; use the address there")
        is_json = answer.getheader("Content-Type", "json").partition(";")[0].endswith("json")
        if text and not is_json and answer.status < 400:
            raise ValueError(_ANOTHER)
        found = json.loads(text) if text and is_json else None
        if answer.status < 400 and not isinstance(found, dict | None):
            raise ValueError(_ANOTHER)
        return Answer(answer.status, answer.headers, found)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._threads, "connection", None)
        if found is None:
            found = self._threads.connection = self._kind(*self._address, timeout=timeout)
        elif found.sock is not None:
            found.sock.settimeout(timeout)
        return found


def _refusal(status: int, found: Any) -> ApiError:
    problem = found if isinstance(found, dict) else {}
    faults = problem.get("errors")
    detail = str(problem.get("detail") or problem.get("title") or "the API refused the request")
    return ApiError(status, detail, faults if isinstance(faults, list) else (), problem)
