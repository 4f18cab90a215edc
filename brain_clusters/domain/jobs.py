"""What travels with a job besides its payload, as one message header that any Celery client can write or leave out.

Agents have no database: what they have to know of a job is in its message. Durations are seconds, times are seconds
since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Priority(StrEnum):
    """How urgent a job is. Within one priority the oldest is first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


# Celery's message priority by ours. Kombu keeps four lists a queue, for 0-2, 3-5, 6-8 and 9, the most urgent first.
# What a plain client sends has none, which is 0 and our normal; for high there is a list of our own above these.
MESSAGE_PRIORITY = {Priority.HIGH: 0, Priority.NORMAL: 0, Priority.LOW: 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How one job is to be done. None is "not stated": the group's own setting holds.

    max_attempts: deliveries, the first included, before it is given up, whether it raised or its agent died.
    backoff_seconds: the wait before the second attempt; it doubles with each further one up to backoff_max_seconds.
    timeout_seconds: the longest that one attempt may take. expires_at: not to be begun after.
    parent_id, root_id, depth: the place in a tree of delegated jobs; a job of its own has depth 0 and no parent.
    capability: what the job asked for, where it was addressed by capability. traceparent, tracestate: the span that it
    was sent in, as W3C has them.
    """

    max_attempts: int | None = None
    backoff_seconds: float | None = None
    backoff_max_seconds: float | None = None
    timeout_seconds: float | None = None
    expires_at: float | None = None
    capability: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    depth: int = 0
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def trace(self) -> dict[str, str]:
        """The carrier of the span that it was sent in; {} when there was none."""
        found = {"traceparent": self.traceparent, "tracestate": self.tracestate}
        return {name: value for name, value in found.items() if value is not None}

    def as_header(self) -> dict[str, Any]:
        """Return what is stated, as JSON-ready data; {} when nothing is."""
        return {key: value for key, value in asdict(self).items() if value is not None and (key, value) != ("depth", 0)}

    @classmethod
    def from_header(cls, found: object) -> JobOptions:
        """Return the options in a message's header. What makes no sense there is as if it were not stated."""
        if not isinstance(found, Mapping):
            return cls()
        sound = {name: found[name] for name, kinds in _KINDS.items() if _is(found.get(name), kinds)}
        return cls(**sound)


_KINDS: dict[str, tuple[type, ...]] = {
    each.name: (int,) if "int" in str(each.type) else (int, float) if "float" in str(each.type) else (str,)
    for each in fields(JobOptions)
}


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    """Return whether ``value`` is of ``kinds``; a number also has to be one that can count or last."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return isinstance(value, str) or 0 <= float(value) < 1e15  # type: ignore[arg-type]
