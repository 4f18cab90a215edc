"""One Genesis service over HTTP: each call is tried a few times, with one Idempotency-Key, and fails in a sentence."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import httpx2

from brain_clusters.config import Settings
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.domain.retry_after import retry_after
from brain_clusters.errors import ConfigError, InvalidInput, PermanentError, TemporaryError
from brain_clusters.genesis.remote.circuit import Circuit, pause_seconds

# All attempts of one call together. A host has to beat every few seconds and makes its calls in between.
_PATIENCE_SECONDS = 6.0
_CONNECT_SECONDS = 3.0
_MOST_ANSWER_BYTES = 16 << 20
_SHOWN_CHARACTERS = 300
_AGAIN = (408, 409, 425, 429)

Trace = Callable[[str, Mapping[str, Any]], None]


class Refused(InvalidInput):
    """The service answered that it will not do this. status: HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class GenesisClient:
    """place: the service's URL. Used from one thread. again: the statuses below 500 after which to try again."""

    def __init__(self, place: str, key: str | None, *, again: tuple[int, ...] = _AGAIN) -> None:
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # or every poll is told of
        headers = {b"accept": b"application/json", b"accept-encoding": b"identity"}
        if key is not None:
            headers[b"authorization"] = f"Bearer {key}".encode()
        # Certificates are checked, against SSL_CERT_FILE where that is set. No redirects, and no proxies: the address
        # is the operator's own.
        self._http = httpx2.Client(
            headers=headers, verify=httpx2.create_ssl_context(), trust_env=False, follow_redirects=False
        )
        self._again = again
        self._circuit = Circuit()
        self.place = place

    @classmethod
    def of(cls, settings: Settings, *, again: tuple[int, ...] = _AGAIN) -> GenesisClient:
        """Return a client of the service that the settings name. Raises ConfigError where that is not to be called."""
        place, key = settings.genesis_url, next(iter(settings.genesis_key), None)
        if place is None:
            raise ConfigError("BRAIN_GENESIS_URL is not set: the driver remote needs the address of a Genesis service")
        url = httpx2.URL(place)
        if url.scheme != "https" and not is_loopback(url.host) and settings.genesis_plain_http != "allow":
            raise ConfigError(
                f"BRAIN_GENESIS_URL={place} would send its key and the address of Redis readable for all in between: "
                "use https://, or set BRAIN_GENESIS_PLAIN_HTTP=allow where the network itself is private"
            )
        return cls(place, key, again=again)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's JSON, None for none.

        Raises TemporaryError, at once while the service is known not to answer; Refused for 4xx; PermanentError when
        it has to be mended by somebody.
        """
        self._circuit.check()
        key = uuid.uuid4().hex
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for attempt in count(1):
            try:
                answer = self.once(method, path, body, key=key, seconds=deadline - time.monotonic())
            except TemporaryError as exc:
                pause = max(pause_seconds(attempt), exc.delay_seconds)
                if time.monotonic() + pause >= deadline:
                    self._circuit.open(str(exc), exc.delay_seconds)
                    raise
                time.sleep(pause)
            except PermanentError as exc:
                self._circuit.open(str(exc))
                raise
            except Refused:
                self._circuit.close()
                raise
            else:
                self._circuit.close()
                return answer
        raise AssertionError("count() does not end")

    def once(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, seconds: float,
        trace: Trace | None = None,
    ) -> Any:  # fmt: skip
        """Make one attempt of at most ``seconds``; see ``call``. trace: told of what the connection does."""
        deadline = time.monotonic() + seconds
        request = self._http.build_request(
            method, f"{self.place}{path}", json=body, headers={"idempotency-key": key} if key else None,
            timeout=httpx2.Timeout(max(0.1, seconds), connect=_CONNECT_SECONDS),
            extensions={"trace": trace} if trace else None,
        )  # fmt: skip
        try:
            answer = self._http.send(request, stream=True)
            try:
                data = self._read(answer, deadline)
            finally:
                answer.close()
        except httpx2.TimeoutException as exc:
            raise TemporaryError(f"the Genesis service {self.place} does not answer in time", delay_seconds=0) from exc
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.StreamError, OSError) as exc:
            told = str(exc) or type(exc).__name__
            raise TemporaryError(f"the Genesis service {self.place} does not answer: {told}", delay_seconds=0) from exc
        return self._judged(answer, data)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _read(self, answer: httpx2.Response, deadline: float) -> bytes:
        data = bytearray()
        for piece in answer.iter_bytes():
            data += piece
            if len(data) > _MOST_ANSWER_BYTES:
                raise TemporaryError(f"what answers at {self.place} is no Genesis service: it does not end")
            if time.monotonic() > deadline:
                raise TemporaryError(f"the Genesis service {self.place} answers too slowly", delay_seconds=0)
        return bytes(data)

    def _judged(self, answer: httpx2.Response, data: bytes) -> Any:
        """Return the JSON of a success, and raise what any other answer means."""
        status = answer.status_code
        if 200 <= status < 300:
            return self._parsed(data)
        said = f"{self.place} answered {status}: {_detail(data)}"
        if status in self._again or status >= 500:
            delay = retry_after(answer.headers, time.time())
            raise TemporaryError(f"the Genesis service {said}", delay_seconds=delay or 0.0)
        if status in (401, 403):
            raise PermanentError(f"the Genesis service {said}; set BRAIN_GENESIS_KEY to a key that it accepts")
        if status < 400:
            target = answer.headers.get("location", "elsewhere")
            raise PermanentError(
                f"{self.place} redirects to {target}, which is not followed: put the address that is meant into "
                "BRAIN_GENESIS_URL"
            )
        raise Refused(f"the Genesis service {said}", status)

    def _parsed(self, data: bytes) -> Any:
        if not data.strip():
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise TemporaryError(
                f"what answers at {self.place} is no Genesis service: {_shown(data)}", delay_seconds=0
            ) from exc


def _detail(data: bytes) -> str:
    """Return what an error's body says: the ``detail`` and ``errors`` of problem+json, or its beginning."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return _shown(data)
    if not isinstance(found, dict) or not found.get("detail"):
        return _shown(data)
    errors = found.get("errors")
    more = [str(one.get("detail")) for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return ": ".join([str(found["detail"]), *more[:3]])[:_SHOWN_CHARACTERS]


def _shown(data: bytes) -> str:
    text = data[: 4 * _SHOWN_CHARACTERS].decode(errors="replace").strip()
    return " ".join(text.split())[:_SHOWN_CHARACTERS] or "(an empty body)"
