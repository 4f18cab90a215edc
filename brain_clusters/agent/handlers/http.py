"""``http: {url, ...}``: a request for each job, with the payload in its body, or in its query where it has none.

What an answer means: 2xx is the result, as JSON or text. 429, 408, 5xx, silence and lost connections are tried again,
when the server says when, then. Any other is a failure. Redirects lead to the same server only.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import httpx2

from brain_clusters.agent import wire
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError, Retry
from brain_clusters.agent.handlers.functions import Handler
from brain_clusters.agent.secrets import resolved, without
from brain_clusters.domain.addresses import Network
from brain_clusters.domain.retry_after import retry_after
from brain_clusters.domain.work import HttpCall

ANSWER_LIMIT_BYTES = 1024 * 1024
_MOST_REDIRECTS = 5
_SHOWN_CHARACTERS = 500
_WITHOUT_BODY = ("GET", "DELETE")
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9-]*) )?(env:[A-Za-z_][A-Za-z0-9_]*)")
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def handler(call: HttpCall, allowed: Sequence[Network] = (), resolving: wire.Resolve = wire.resolve) -> Handler:
    """Return a handler that sends ``call`` for each job, to public addresses and to those in ``allowed``."""
    rules = wire.Rules(allowed=allowed, total_seconds=call.timeout_seconds)

    def run(payload: Any, context: JobContext) -> Any:
        headers, secrets = _headers(call.headers)
        try:
            with wire.client(context, rules, resolving=resolving) as client:
                return _sent(client, _request(client, call, headers, payload, context.job_id))
        except httpx2.TimeoutException as exc:
            raise Retry(message=f"{_place(call)} did not answer in time: {exc or 'it was silent'}") from None
        except (httpx2.TransportError, httpx2.DecodingError) as exc:
            said = without(secrets, str(exc)) or type(exc).__name__
            raise Retry(message=f"{_place(call)} cannot be reached or broke off: {said}") from None
        except (HandlerError, Retry) as exc:
            exc.args = tuple(without(secrets, str(arg)) for arg in exc.args)
            raise
        except (httpx2.InvalidURL, UnicodeError, ValueError) as exc:
            raise HandlerError(f"no request can be made: {without(secrets, str(exc))}") from None

    return run


def _headers(stated: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the headers with references resolved, and the secrets in them."""
    headers, secrets = {}, []
    for name, value in stated.items():
        found = _REFERENCE.fullmatch(value)
        if found is None:
            headers[name] = value
            continue
        secret = resolved(found[2], f"the header {name}")
        secrets.append(secret)
        headers[name] = f"{found[1]} {secret}" if found[1] else secret
    return headers, secrets


def _request(
    client: httpx2.Client, call: HttpCall, headers: Mapping[str, str], payload: Any, job_id: str
) -> httpx2.Request:
    # Compressed answers are not asked for: a short one may be endless.
    ours = {"accept": "application/json, */*;q=0.5", "accept-encoding": "identity"}
    # Header values are ASCII, and ids of foreign clients may be anything.
    ours["idempotency-key"] = json.dumps(job_id)[1:-1]
    if call.method in _WITHOUT_BODY:
        return client.build_request(call.method, _with_query(call.url, payload), headers={**ours, **headers})
    ours["content-type"] = "application/json"
    return client.build_request(call.method, call.url, headers={**ours, **headers}, content=json.dumps(payload))


def _with_query(url: str, payload: Any) -> httpx2.URL:
    if payload is None or payload == {}:
        return httpx2.URL(url)
    flat = isinstance(payload, Mapping) and all(isinstance(v, str | int | float) for v in payload.values())
    if not flat:
        raise HandlerError("a request without a body takes a flat mapping of texts and numbers, which is its query")
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in payload.items()}
    return httpx2.URL(url).copy_merge_params(words)


def _sent(client: httpx2.Client, request: httpx2.Request) -> Any:
    """Send the request and what it is redirected to; return the result of the last answer."""
    for _ in range(_MOST_REDIRECTS + 1):
        answer = client.send(request, stream=True)
        try:
            if answer.next_request is None:
                return _judged(answer)
            request = _followed(request, answer.next_request)
        finally:
            answer.close()
    raise HandlerError(f"the server redirects more than {_MOST_REDIRECTS} times")


def _followed(before: httpx2.Request, after: httpx2.Request) -> httpx2.Request:
    """Return the request to follow when it stays with its server, or only changes there from http to https."""
    server, target = (before.url.host, _port(before.url)), (after.url.host, _port(after.url))
    upgrade = server == (target[0], 80) and target[1] == 443 and after.url.scheme == "https"
    if (server != target or before.url.scheme != after.url.scheme) and not upgrade:
        raise HandlerError(
            f"{before.url.host} redirects to {after.url.scheme}://{after.url.host}:{_port(after.url)}, and redirects "
            "are followed on the same server only; put the address that is meant into the blueprint"
        )
    return after


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _judged(answer: httpx2.Response) -> Any:
    body, whole = _body(answer)
    status = answer.status_code
    if 200 <= status < 300:
        if not whole:
            raise HandlerError(f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes, which is the limit")
        return _parsed(answer, body)
    said = f"{answer.request.url.host} answered {status} {answer.reason_phrase}: {_start(body)}"
    if status in _AGAIN or status >= 500:
        raise Retry(retry_after(answer.headers, time.time()), said)
    raise HandlerError(said)


def _body(answer: httpx2.Response) -> tuple[bytes, bool]:
    """Return the body up to the limit, and whether that is all of it."""
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > ANSWER_LIMIT_BYTES:
            return bytes(body[:ANSWER_LIMIT_BYTES]), False
    return bytes(body), True


def _parsed(answer: httpx2.Response, body: bytes) -> Any:
    """Return JSON where the answer says that it is, or seems to be; else its text. Nothing is None."""
    text = body.decode(answer.charset_encoding or "utf-8", errors="replace")
    if not text.strip():
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _start(body: bytes) -> str:
    text = body[: 4 * _SHOWN_CHARACTERS].decode(errors="replace").strip()
    return text[:_SHOWN_CHARACTERS] or "(an empty body)"


def _place(call: HttpCall) -> str:
    return httpx2.URL(call.url).host
