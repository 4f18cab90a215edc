"""A small HTTP client for our own API, past any proxy that the environment names."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from brain_clusters.config import Settings
from brain_clusters.errors import InvalidInput, PermanentError, TemporaryError

_TIMEOUT_SECONDS = 90.0


def own_key(settings: Settings) -> str | None:
    """Return the key that this machine's settings give: of BRAIN_API_KEYS, else that of ``BRAIN_HOME/admin.key``."""
    if settings.api_keys:
        return settings.api_keys[0]
    try:
        return (settings.home / "admin.key").read_text().strip() or None
    except OSError:
        return None


class ApiClient:
    """One kept connection. Not thread-safe; raises our own errors for problem answers."""

    def __init__(self, api_url: str, *, key: str | None = None) -> None:
        parts = urlsplit(api_url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``."""
        return self._request("GET", path, None, {})

    def post(self, path: str, body: Any, *, wait_seconds: int = 0) -> Any:
        """Post ``body`` and return the answer's JSON; with ``wait_seconds`` once the operation is done."""
        return self._request("POST", path, body, {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {})

    def delete(self, path: str, *, wait_seconds: int = 0) -> Any:
        """Delete ``path`` and return the answer's JSON."""
        return self._request("DELETE", path, None, {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body)
        headers = {**self._headers, **headers, **({"Content-Type": "application/json"} if data else {})}
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise TemporaryError(f"the API does not answer: {exc or type(exc).__name__}") from exc
        found = json.loads(text) if text else None
        if answer.status < 400:
            return found
        detail = found.get("detail") or found.get("title") if isinstance(found, dict) else answer.reason
        if answer.status == 503:
            raise TemporaryError(str(detail))
        raise (InvalidInput if answer.status == 422 else PermanentError)(f"{method} {path}: {detail}")
