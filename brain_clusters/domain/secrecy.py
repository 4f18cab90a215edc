"""What in people's documents is a secret, and whether it is there itself or only by reference. Pure.

A secret is known by its name (``api_token``, ``DB_PASSWORD``, ``Authorization``), or as an address with a password.
A reference says where it is: ``env:NAME``, ``file:PATH``, ``secret:NAME/KEY``, with words before it in a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "********"
ADVICE = "would be stored and shown; say where the secret is, as env:NAME or file:PATH"
_NAME = re.compile(
    r"(^|[_.\s-])(pass(word|wd|phrase)?|secret|token|credentials?|authorization|(api|access|private|secret)[_-]?key)$",
    re.IGNORECASE,
)
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)
_REFERENCE = re.compile(r"(\w+ )?(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|secret:.+)")


def is_secret(name: str, value: object) -> bool:
    """Return whether ``value`` is a secret itself: text under a secret's name, or an address with a password."""
    if not isinstance(value, str) or not value or value == MASK:
        return False
    if _WITH_PASSWORD.search(value):
        return True
    return _NAME.search(_HUMPS.sub("_", name)) is not None and _REFERENCE.fullmatch(value) is None


def secrets_in(document: object, pointer: str = "", name: str = "") -> Iterator[str]:
    """Yield the JSON pointers (RFC 6901) of all secrets that stand in ``document`` themselves."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            part = str(key).replace("~", "~0").replace("/", "~1")
            yield from secrets_in(value, f"{pointer}/{part}", str(key))
    elif isinstance(document, list | tuple):
        for place, value in enumerate(document):
            yield from secrets_in(value, f"{pointer}/{place}", name)
    elif is_secret(name, document):
        yield pointer


def without_secrets(document: Any, name: str = "") -> Any:
    """Return ``document`` with a mask in place of every secret that stands in it."""
    if isinstance(document, Mapping):
        return {key: without_secrets(value, str(key)) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_secrets(value, name) for value in document]
    return MASK if is_secret(name, document) else document
