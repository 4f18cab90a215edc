"""The header Retry-After [RFC 9110, 10.2.3]."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping

MOST_SECONDS = 3600.0


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of a Retry-After header, given as such or as a date; at most an hour, None without it.

    headers: with lower-case names, or looked up without regard to case. now: seconds since the epoch.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else _date(text) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), MOST_SECONDS)


def _date(text: str) -> float:
    return email.utils.parsedate_to_datetime(text).timestamp()
