"""The API as commands see it: JSON in and out, all pages of a list, and our own errors with what to do next."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from brain_clusters.client.errors import ApiError, Unreachable
from brain_clusters.client.events import follow_frames
from brain_clusters.client.rest import Answer, Rest
from brain_clusters.config import Settings
from brain_clusters.errors import BrainError, Conflict, Fault, InvalidInput, NotFound, PermanentError, TemporaryError

_TIMEOUT_SECONDS = 90.0
_PER_PAGE = 200
_OURS = "urn:brain:problem:"
# What an answer of 429 or 503 may cost before it is told: a busy API is asked again, one that is away is not.
_PATIENCE_SECONDS = 10.0
_STREAM_PATIENCE_SECONDS = 300.0


def own_key(settings: Settings) -> str | None:
    """Return the key that this machine's settings give: of BRAIN_API_KEYS, else that of ``BRAIN_HOME/admin.key``."""
    if settings.api_keys:
        return settings.api_keys[0]
    try:
        return settings.admin_key_path.read_text().strip() or None
    except OSError:
        return None


def path_of(*parts: str) -> str:
    """Return the path below /api of these parts, whatever characters they have."""
    return "/".join(("/api", *(quote(part, safe="") for part in parts)))


class ApiClient:
    """One kept connection, past any proxy that the environment names. Raises our own errors for problem answers.

    key_from: where the key came from, for people; timeout: seconds without a word after which nobody is there.
    """

    def __init__(
        self, api_url: str, *, key: str | None = None, key_from: str = "", timeout: float = _TIMEOUT_SECONDS
    ) -> None:
        try:
            self._rest = Rest(api_url, key, timeout)
        except ValueError as exc:
            raise InvalidInput(str(exc)) from exc
        self.url = api_url
        self._timeout, self._has_key, self._key_from = timeout, bool(key), key_from

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at ``path``. query: parameters; None is not sent."""
        return self._request("GET", path + _query(query), None, {})

    def post(self, path: str, body: Any = None, *, wait_seconds: int = 0) -> Any:
        """Post ``body`` and return the answer's JSON; with ``wait_seconds`` once the operation is done.

        However often it is sent, it is done once.
        """
        headers = {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        return self._request("POST", path, body, {**headers, "Idempotency-Key": uuid.uuid4().hex})

    def put(self, path: str, body: Any) -> Any:
        """Put ``body`` and return the answer's JSON."""
        return self._request("PUT", path, body, {})

    def delete(self, path: str, *, wait_seconds: int = 0) -> Any:
        """Delete ``path`` and return the answer's JSON."""
        return self._request("DELETE", path, None, {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {})

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Yield the pages of a list, as the API gives them, until the last."""
        query = {"limit": _PER_PAGE, **query}
        while True:
            page = self.get(path, **query)
            yield page
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def every(self, path: str, name: str, *, most: int | None = None, **query: Any) -> Any:
        """Return a list as the API names it, all pages in one: ``{name: [...], "total": N}``.

        most: the newest so many; all without it.
        """
        rows: list[Any] = []
        limit = {} if most is None else {"limit": min(most, _PER_PAGE)}
        page: Any = {}
        for page in self.pages(path, **limit, **query):
            rows += page[name]
            if most is not None and len(rows) >= most:
                break
        return {**page, name: rows[:most], "next_cursor": None}

    def messages(self, path: str, *, patience: float = _STREAM_PATIENCE_SECONDS) -> Iterator[dict[str, str]]:
        """Yield the messages of a stream, by the names of their fields, without a gap where it breaks.

        patience: the seconds that nobody may answer once it has begun.
        """
        self.get("/healthz")  # who cannot be reached at all is told so at once
        try:
            yield from follow_frames(self._rest, path, None, patience)
        except ApiError as exc:
            raise self._refusal("GET", path, exc.status, exc.problem) from exc
        except Unreachable as exc:
            raise self._away(exc.__cause__ or exc) from exc

    def close(self) -> None:
        """Close the connection."""
        self._rest.close()

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, **({"Content-Type": "application/json"} if data else {})}
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            answer = self._once(method, path, data, headers)
            if answer.status < 400:
                return answer.json
            told = answer.headers.get("Retry-After", "")
            wait = float(told) if told.isdigit() else None
            if answer.status not in (429, 503) or wait is None or time.monotonic() + wait > deadline:
                raise self._refusal(method, path, answer.status, answer.json if isinstance(answer.json, dict) else {})
            time.sleep(wait)

    def _once(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        """Send a request, and once more where a kept connection was closed meanwhile."""
        try:
            try:
                return self._rest.once(method, path, data, headers, self._timeout)
            except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                self._rest.close()
                if method != "GET" and "Idempotency-Key" not in headers:
                    raise
                return self._rest.once(method, path, data, headers, self._timeout)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self._rest.close()
            raise self._away(exc) from exc

    def _away(self, exc: BaseException) -> TemporaryError:
        return TemporaryError(
            f"the API at {self.url} does not answer: {exc or type(exc).__name__}. Is it running ('brain-clusters up', "
            "or the service that serves it), and is the address right (--api, BRAIN_API_URL, 'brain-clusters config "
            "use')? 'brain-clusters doctor' looks further"
        )

    def _refusal(self, method: str, path: str, status: int, problem: Mapping[str, Any]) -> BrainError:
        """Return our error for an answer that refuses."""
        detail = str(problem.get("detail") or problem.get("title") or f"{method} {path} was answered {status}")
        if status == 401:
            return PermanentError(f"the API at {self.url} {self._unknown()}")
        if status == 403:
            return PermanentError(
                f"not allowed: {detail}. Ask an admin for a key that may ('brain-clusters keys create')"
            )
        if status == 409:
            return Conflict(detail, status=problem.get("cluster_status"), possible=problem.get("possible") or ())
        if status == 422:
            return InvalidInput(detail, [_fault(one) for one in problem.get("errors") or ()])
        if status == 404 and str(problem.get("type", "")).startswith(_OURS):
            return NotFound(detail)
        if status in (404, 405):
            return PermanentError(
                f"the API at {self.url} does not know {method} {path.partition('?')[0]}; it is older than this command "
                "line, or something else answers there ('brain-clusters doctor' compares the versions)"
            )
        if status in (429, 503):
            return TemporaryError(detail)
        return PermanentError(detail)

    def _unknown(self) -> str:
        if not self._has_key:
            return (
                "asks for a key, and there is none: name one by BRAIN_API_KEY, --key, or 'brain-clusters config set'; "
                "on the API's machine, that of its BRAIN_HOME/admin.key is taken"
            )
        return (
            f"does not know the key{self._key_from and f' of {self._key_from}'}: it has ended, was revoked, or is "
            "another installation's. An admin makes one with 'brain-clusters keys create'; on the API's machine, "
            "'brain-clusters keys create --direct' asks no API"
        )


def _query(query: Mapping[str, Any]) -> str:
    given = {name: _text(value) for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fault(told: Mapping[str, Any]) -> Fault:
    return Fault(str(told.get("pointer") or ""), str(told.get("detail")), told.get("line"), told.get("column"))
