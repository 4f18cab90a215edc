"""Figures and states as people read them: the filters of the templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
# The first that is found: later ones are named by the earlier, too.
_BROWSERS = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("HeadlessChrome/", "Chromium"),
    ("Chrome/", "Chrome"), ("Safari/", "Safari"), ("curl/", "curl"),
)  # fmt: skip
_SYSTEMS = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)  # fmt: skip
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: its word, a shape that tells it without colour, and a tone that is its colour."""

    word: str
    shape: str
    tone: str


# Shapes: full, ring, half, diamond, triangle, moon, cross. Tones: ok, work, move, warn, bad, sleep, off.
_LOOKS = {
    "cluster": {
        "planning": Look("Planning", "half", "move"),
        "spawning": Look("Spawning", "half", "move"),
        "active": Look("Active", "full", "ok"),
        "scaling_up": Look("Scaling up", "half", "move"),
        "scaling_down": Look("Scaling down", "half", "move"),
        "hibernated": Look("Asleep", "moon", "sleep"),
        "destroying": Look("Destroying", "half", "warn"),
        "destroyed": Look("Destroyed", "ring", "off"),
    },
    "agent": {
        "starting": Look("Starting", "half", "move"),
        "idle": Look("Idle", "ring", "ok"),
        "busy": Look("Busy", "full", "ok"),
        "draining": Look("Draining", "triangle", "warn"),
        "stopped": Look("Stopped", "ring", "off"),
        "failed": Look("Failed", "cross", "bad"),
    },
    "job": {
        "queued": Look("Queued", "ring", "move"),
        "running": Look("Running", "half", "move"),
        "succeeded": Look("Succeeded", "full", "ok"),
        "failed": Look("Failed", "cross", "bad"),
        "dead": Look("Dead", "diamond", "bad"),
        "cancelled": Look("Cancelled", "ring", "off"),
    },
    "operation": {
        "pending": Look("Pending", "ring", "move"),
        "running": Look("Running", "half", "move"),
        "succeeded": Look("Succeeded", "full", "ok"),
        "failed": Look("Failed", "cross", "bad"),
    },
    "alert": {
        "ok": Look("Fine", "full", "ok"),
        "pending": Look("Pending", "triangle", "warn"),
        "firing": Look("Firing", "diamond", "bad"),
        "clearing": Look("Clearing", "triangle", "warn"),
        "resolved": Look("Over", "ring", "off"),
    },
    "decision": {
        "scale": Look("Scale", "full", "move"),
        "hibernate": Look("Sleep", "moon", "sleep"),
        "reactivate": Look("Wake", "full", "ok"),
        "destroy": Look("Destroy", "cross", "bad"),
        "hold": Look("Held back", "ring", "off"),
        "none": Look("Nothing to do", "ring", "off"),
    },
    "beat": {
        "fresh": Look("Beats", "full", "ok"),
        "missing": Look("No beat", "cross", "bad"),
        "unknown": Look("Unknown", "ring", "off"),
    },
}


def look(status: Any, kind: str) -> Look:
    """Return how a state of ``kind`` (cluster, agent, job, ...) is shown."""
    word = str(status)
    return _LOOKS[kind].get(word, Look(word.replace("_", " ").capitalize(), "ring", "off"))


def moment(at: datetime | None, none: str = NOTHING) -> Markup:
    """Return a time as how long ago it is, with the exact one in the title. Scripts keep it up to date."""
    if at is None:
        return Markup("{}").format(none)
    exact = at.astimezone(UTC)
    stamp = exact.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact.isoformat(), stamp, ago(at))


def ago(at: datetime) -> str:
    """Return how long ago, or in how long, a time is."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def duration(seconds: float | None) -> str:
    """Return seconds in the largest unit that fits, whole from ten on: 3.2 s, 45 s, 12 min, 5 h, 3 d."""
    if seconds is None:
        return NOTHING
    for size, unit in _UNITS:
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "s" and value < 10 else f"{int(value)} {unit}"
    return f"{seconds * 1000:.0f} ms" if seconds else "0 s"


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thin groups of thousands."""
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(value: float | None) -> str:
    """Return bytes in the unit that fits."""
    if value is None:
        return NOTHING
    found = float(value)
    for unit in _BYTES:
        if found < 1024 or unit == _BYTES[-1]:
            break
        found /= 1024
    return f"{found:.0f} {unit}" if found >= 10 or unit == "B" else f"{found:.1f} {unit}"


def money(value: float | None, currency: str = "") -> str:
    """Return an amount; small ones with more digits, so that a cheap agent does not read as a free one."""
    if value is None:
        return NOTHING
    digits = 2 if abs(value) >= 0.095 or not value else 4
    return f"{number(float(value), digits)}\N{NO-BREAK SPACE}{currency}".strip()


def percent(value: float | None) -> str:
    """Return a share of 0 to 1 in percent."""
    return NOTHING if value is None else f"{value * 100:.0f}\N{NARROW NO-BREAK SPACE}%"


def kind(name: str) -> str:
    """Return the kind of an event as words: operation.accepted -> Operation accepted."""
    return name.replace(".", " ").replace("_", " ").capitalize()


def counts(found: Mapping[str, int]) -> str:
    """Return agents by group in one line."""
    return ", ".join(f"{name} {count}" for name, count in found.items()) or NOTHING


def pretty(value: Any) -> str:
    """Return data as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def browser(agent: str) -> str:
    """Return what a User-Agent header names, as far as people know it."""
    name = next((one for mark, one in _BROWSERS if mark in agent), agent[:40])
    system = next((one for mark, one in _SYSTEMS if mark in agent), None)
    return f"{name} on {system}" if system else name


def breakable(text: str) -> Markup:
    """Return an id that may be broken at its dots and dashes."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    found, begin = [], 0
    for place, char in enumerate(text):
        if char in ".-_/:":
            found.append(text[begin : place + 1])
            begin = place + 1
    return [*found, text[begin:]]


FILTERS: dict[str, Callable[..., Any]] = {
    "look": look, "moment": moment, "ago": ago, "duration": duration, "number": number, "size": size, "money": money,
    "percent": percent, "kind": kind, "counts": counts, "pretty": pretty, "plural": plural, "breakable": breakable,
    "browser": browser,
}  # fmt: skip
