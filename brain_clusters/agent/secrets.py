"""Secrets by reference: read from the agent's own environment when they are needed, and never shown."""

from __future__ import annotations

from collections.abc import Iterable

from brain_clusters.agent.errors import HandlerError
from brain_clusters.config import SECRET_MASK, resolve


def resolved(reference: str, what: str) -> str:
    """Return the secret that ``what`` refers to; raise HandlerError, without it, when it cannot be had or used."""
    try:
        secret = resolve(reference)
    except ValueError as exc:
        raise HandlerError(f"{what} refers to {exc}") from None
    if not secret.isascii() or not secret.isprintable():
        raise HandlerError(f"{what} refers to {reference}, whose value no header can hold: it is not printable ASCII")
    return secret


def without(secrets: Iterable[str], text: str) -> str:
    """Return ``text`` with every secret masked: servers like to repeat what they were sent."""
    for secret in secrets:
        text = text.replace(secret, SECRET_MASK) if secret else text
    return text
