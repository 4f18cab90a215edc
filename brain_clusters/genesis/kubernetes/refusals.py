"""What the API server refuses, in our words: whether to try again, and what somebody has to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from brain_clusters.errors import BrainError, Conflict, NotFound, PermanentError, TemporaryError

_AWAY_SECONDS = 1.0
_MENDED_BY_HAND_SECONDS = 10.0
_MOST_RETRY_AFTER_SECONDS = 300.0


class Denied(TemporaryError):
    """The credentials are not accepted, or not for this. It is waited until somebody mends that."""


class Expired(NotFound):
    """What happened since the resource version that a watch asked for is not known any more."""


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> BrainError:
    """Return what an answer other than 2xx means."""
    told = _message(status, body)
    match status:
        case 401:
            return Denied(f"Kubernetes does not accept the credentials (401): {told}; renew them", delay_seconds=10)
        case 403:
            return _forbidden(told)
        case 404:
            return NotFound(told)
        case 409:
            return Conflict(told)
        case 410:
            return Expired(told)
        case 408 | 425 | 429:
            return TemporaryError(f"Kubernetes asks to wait ({status}): {told}", delay_seconds=_retry_after(headers))
    if status >= 500:
        return TemporaryError(f"Kubernetes failed ({status}): {told}", delay_seconds=_retry_after(headers))
    return PermanentError(f"Kubernetes refuses it ({status}): {told}")


def _forbidden(told: str) -> BrainError:
    """Return what a 403 means: the sentences are the API server's own, and all that tells the cases apart."""
    if "exceeded quota" in told:
        # 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3'
        return TemporaryError(f"no room in the quota: {told.partition('forbidden: ')[2] or told}", delay_seconds=5)
    if "being terminated" in told:
        return TemporaryError(f"the namespace is being deleted: {told}", delay_seconds=_MENDED_BY_HAND_SECONDS)
    if " cannot " in told:
        # 'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "n"'
        grant = "grant it by a Role and a RoleBinding (docs/drivers.md has the list)"
        return Denied(f"RBAC forbids it: {told}; {grant}", delay_seconds=_MENDED_BY_HAND_SECONDS)
    return PermanentError(f"an admission rule of the cluster refuses it: {told}")


def _message(status: int, body: bytes) -> str:
    try:
        found: Any = json.loads(body)
        return str(found["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:200] or f"status {status} without a word"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return what Retry-After says in seconds; the API server sends no dates."""
    try:
        return min(max(float(headers.get("Retry-After", "")), 0.0), _MOST_RETRY_AFTER_SECONDS)
    except ValueError:
        return _AWAY_SECONDS
