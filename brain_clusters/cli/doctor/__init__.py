"""What ``doctor`` looks at: one module per place, each yielding findings with a sentence and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands with something. Only what failed makes ``doctor`` fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. says: how it stands; do: what to do about it, empty when nothing."""

    name: str
    state: State
    says: str
    do: str = ""


def ok(name: str, says: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(name, State.OK, says)


def warning(name: str, says: str, do: str) -> Finding:
    """Return that something may become a fault."""
    return Finding(name, State.WARNING, says, do)


def failed(name: str, says: str, do: str) -> Finding:
    """Return that something is wrong."""
    return Finding(name, State.FAILED, says, do)


def skipped(name: str, says: str) -> Finding:
    """Return that something was not looked at, and why."""
    return Finding(name, State.SKIPPED, says)
