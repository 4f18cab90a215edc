"""Durations, percentages and times as people write them: "1 hour", "90s", 5; "10%", 10; "2026-10-01T08:00:00Z"."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

_UNITS = {
    "ms": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_PART = re.compile(rf"\s*({_NUMBER.pattern})\s*([a-z]+)\s*,?")
_LONGEST_TEXT = 60
LONGEST_DURATION_SECONDS = 10 * 365 * 86400.0


def parse_duration(value: object) -> float:
    """Return ``value`` in seconds; a number is seconds already. Raise ValueError with a sentence."""
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        seconds = _spelled(value.strip().lower())
    if seconds is None:
        raise ValueError("must be a duration such as 90s, 5 minutes, 1h30m or 7 days (a bare number is seconds)")
    if not 0 <= seconds <= LONGEST_DURATION_SECONDS:
        raise ValueError("must be a duration between 0 and 10 years")
    return seconds


def parse_instant(value: object) -> datetime:
    """Return a time given as ISO 8601 text with its offset. Raise ValueError with a sentence."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= _LONGEST_TEXT else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("must be a time with its offset, such as 2026-10-01T08:00:00Z or 2026-10-01T10:00:00+02:00")
    return found


def in_utc(found: datetime) -> datetime:
    """Return a time in UTC; the first or the last that there is where it lies beyond."""
    try:
        return found.astimezone(UTC)
    except OverflowError:
        return (datetime.min if found.year < 1000 else datetime.max).replace(tzinfo=UTC)


def parse_end(value: object, now: datetime) -> datetime:
    """Return the time at which something ends: an instant, or a duration from ``now``. Raise ValueError."""
    try:
        return now + timedelta(seconds=parse_duration(value))
    except ValueError:
        pass
    try:
        return parse_instant(value)
    except ValueError:
        raise ValueError(
            "must be a duration such as 5 minutes (a bare number is seconds), or a time with its offset, such as "
            "2026-10-01T08:00:00Z"
        ) from None


def parse_percent(value: object) -> float:
    """Return ``value`` as a number from 0 to 100. Raise ValueError with a sentence."""
    percent = _number(value.strip().removesuffix("%").rstrip() if isinstance(value, str) else value)
    if percent is None or not 0 <= percent <= 100:
        raise ValueError("must be a percentage from 0 to 100, such as 10% or 10")
    return percent


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < 10**15 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return None


def _spelled(text: str) -> float | None:
    """Add up parts such as "1 hour 30 minutes"; None where ``text`` is anything else."""
    if not text or len(text) > _LONGEST_TEXT:
        return None
    total, position = 0.0, 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2] not in _UNITS:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return total
