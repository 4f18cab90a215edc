"""``resources.memory``: how much the agents of a cluster may keep in common, and for how long."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from brain_clusters.domain.durations import parse_duration

DEFAULT_SIZE_BYTES = 1000**2
DEFAULT_RETENTION_SECONDS = 7 * 86_400.0
# It lies in Redis, whose memory all clusters share.
LARGEST_SIZE_BYTES = 10 * 1000**3
_UNITS = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4,
    "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4, "tb": 1000**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)\s*")


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """The bounds of one cluster's memory. retention_seconds: how long a value is kept after it was last written."""

    size_bytes: int = DEFAULT_SIZE_BYTES
    retention_seconds: float = DEFAULT_RETENTION_SECONDS


def parse_size(value: object) -> int:
    """Return ``value`` in bytes; a number is bytes already. Raise ValueError with a sentence."""
    size = parse_bytes(value)
    if size is None:
        raise ValueError("must be a size such as 500KB, 10MB, 64MiB or 1GB (a bare number is bytes)")
    if not 1 <= size <= LARGEST_SIZE_BYTES:
        raise ValueError("must be a size between 1 byte and 10GB")
    return int(size)


def parse_bytes(value: object) -> float | None:
    """Return ``value`` in bytes, with or without a unit; None for what is no size."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str) and len(value) <= 60:
        found = _SIZE.fullmatch(value.lower())
        return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None
    return None


def parse_retention(value: object) -> float:
    """Return ``value`` in seconds, more than none. Raise ValueError with a sentence."""
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be a duration of more than 0 seconds")
    return seconds


def shared_memory(stated: object) -> SharedMemory | None:
    """Return what ``resources.memory`` says, or None for none at all. Raises ValueError for a size that is none.

    Any data is accepted, as "there is a memory"; in a mapping, ``size`` and ``retention`` bound it.
    """
    if stated is None or stated is False:
        return None
    if not isinstance(stated, dict):
        return SharedMemory()
    return SharedMemory(
        parse_size(stated["size"]) if stated.get("size") is not None else DEFAULT_SIZE_BYTES,
        parse_retention(stated["retention"]) if stated.get("retention") is not None else DEFAULT_RETENTION_SECONDS,
    )
