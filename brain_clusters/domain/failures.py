"""What failed jobs are grouped by: their error without what differs from one job to the next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST_KEY = 200
# What is read of a message; a key is far shorter, and a message may be 10,000 characters.
_READ = 2000
# In this order: what is quoted may hold paths, and paths and ids hold numbers.
_VARYING = (
    (re.compile(r"""(?<!\w)(?:'[^'\n]*'|"[^"\n]*"|`[^`\n]*`)(?!\w)"""), "<text>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s,;)>\]]+", re.IGNORECASE), "<url>"),
    (re.compile(r"(?<![\w<])(?:[A-Za-z]:)?[\w.~-]*(?:[/\\][\w.@%+~-]+){2,}[/\\]?|(?<![\w</])/[\w.@%+~-]+"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"[0-9]+(?:[.,:][0-9]+)*"), "<n>"),
)
_SPACE = re.compile(r"\s+")


def error_key(error: Mapping[str, Any] | None) -> str:
    """Return the key of an error with ``type`` and ``message``: both, with placeholders for ids, numbers and the like.

    Of at most LONGEST_KEY characters. The same fault gives the same key, as far as its message follows a pattern.
    """
    found = error or {}
    kind, message = str(found.get("type") or "Error"), str(found.get("message") or "")[:_READ]
    for pattern, placeholder in _VARYING:
        message = pattern.sub(placeholder, message)
    message = _SPACE.sub(" ", message).strip()
    return (f"{kind}: {message}" if message and message != kind else kind)[:LONGEST_KEY]
