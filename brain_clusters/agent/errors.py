"""What a handler may raise to say how its job ended, and what is raised in it from outside.

Any other exception is a failed attempt, recorded with its traceback.
"""

from __future__ import annotations


class HandlerError(Exception):
    """A job failed for good, for a reason that needs no traceback: the message says it all. Never tried again."""


class BudgetExceeded(HandlerError):
    """A call that costs may not begin: its cluster or its tree of jobs has spent what it may."""


class Retry(Exception):
    """A job could not be done now. It is tried again after ``after`` seconds, or after its back-off without that."""

    def __init__(self, after: float | None = None, message: str = "") -> None:
        super().__init__(message or "try again later")
        self.after = after


class JobTimeout(BaseException):
    """Raised in a handler whose attempt takes too long. No Exception, so that ``except Exception`` lets it through."""


class JobCancelled(BaseException):
    """Raised in a handler whose job was cancelled; a handler that sees ``context.cancelled`` may raise it itself."""
