"""Every exception of ours. Each class answers two questions: whose fault is it, and does a retry help?

Foreign exceptions are translated once, in the adapter that meets them, with ``raise ... from exc``.
HTTP status codes for these classes stand in one table, in ``api/problems.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input.

    pointer: RFC 6901 JSON pointer to the faulty value ("" is the whole document).
    message: what is wrong and what to do, in one sentence.
    line, column: 1-based position in the source text, where there is one.
    """

    pointer: str
    message: str
    line: int | None = None
    column: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as JSON-ready data, without the positions it does not have."""
        found: dict[str, Any] = {"pointer": self.pointer, "detail": self.message}
        if self.line is not None:
            found |= {"line": self.line, "column": self.column}
        return found


class BrainError(Exception):
    """The root. ``retryable`` says whether the same call may succeed later without a change."""

    retryable = False


class InvalidInput(BrainError):
    """The caller's fault: the input does not say something we can do. Carries every fault found.

    place: what of a request the faults' pointers lead into, "query" or "header"; None for its document.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, place: str | None = None) -> None:
        super().__init__(message)
        self.faults = tuple(faults)
        self.place = place


class NotFound(BrainError):
    """The caller named something that is not there."""


class Conflict(BrainError):
    """The request is sound, but not in the state that its subject is in.

    status: that state, where there is one; possible: the commands that the state allows.
    """

    def __init__(self, message: str, *, status: str | None = None, possible: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.possible = tuple(possible)


class Outdated(BrainError):
    """The caller changes what it read before somebody else changed it, and said that it does not want that."""


class TemporaryError(BrainError):
    """Nobody's fault: a server we need does not answer. Try again after ``delay_seconds``."""

    retryable = True

    def __init__(self, message: str, *, delay_seconds: float = 2.0) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


class SchemaMismatch(TemporaryError):
    """The database's schema is not one that this code works with. Passes when it is migrated, or newer code runs."""


class LeaseLost(BrainError):
    """This process is not the host any more: it was silent for too long. Whoever is it now owns the agents."""


class PermanentError(BrainError):
    """Our fault or the machine's: trying again changes nothing until somebody mends it."""


class ConfigError(PermanentError):
    """A ``BRAIN_*`` variable says something we cannot use. The message names the variable."""
