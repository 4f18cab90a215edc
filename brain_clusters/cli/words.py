"""Values as people read them: times, ages, numbers, and text that cannot harm a terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

NOTHING = "-"
_STEPS = ((86_400 * 365, "y"), (86_400, "d"), (3600, "h"), (60, "m"))


def plain(text: str) -> str:
    """Return ``text`` with control characters written out: names and errors are other people's."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def word(value: Any) -> str:
    """Return any JSON value as one line."""
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(word(one) for one in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={word(one)}" for key, one in value.items())
    return plain(str(value))


def span(seconds: float | None) -> str:
    """Return a length of time in its two largest units at most: 45s, 12m, 3h20m, 5d."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    left = int(seconds)
    for place, (size, unit) in enumerate(_STEPS):
        if left >= size:
            count, rest = divmod(left, size)
            smaller, name = _STEPS[place + 1] if place + 1 < len(_STEPS) else (1, "s")
            more = rest // smaller
            return f"{count}{unit}{more}{name}" if more and count < 10 else f"{count}{unit}"
    return f"{left}s"


def age(instant: str | None, now: datetime | None = None) -> str:
    """Return how long ago an instant of the API's was."""
    if instant is None:
        return NOTHING
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(instant)
    return span(max(0.0, passed.total_seconds()))


def percent(value: float | None) -> str:
    """Return a figure from 0 to 100."""
    return NOTHING if value is None else f"{value:.0f}%"


def size(value: float | None) -> str:
    """Return bytes in a unit that suits them."""
    if value is None:
        return NOTHING
    for unit in ("B", "K", "M", "G"):
        if abs(value) < 1024:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(one) for one in text)


def cut(text: str, most: int) -> str:
    """Return ``text`` in at most ``most`` columns, with … for what is left out."""
    if width(text) <= most:
        return text
    kept = ""
    for one in text:
        if width(kept) + _columns(one) > most - 1:
            break
        kept += one
    return f"{kept}…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
