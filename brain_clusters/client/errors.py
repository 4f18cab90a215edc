"""What can go wrong for a program that sends jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """The root of what this package raises, ``TimeoutError`` apart."""


class Unreachable(ClientError):
    """The API did not answer, or not as it should, however often it was asked. A job may or may not be accepted."""


class ApiError(ClientError):
    """The API refused a request. status: of HTTP; faults: what is wrong and where, as far as it said.

    problem: all of its answer, by RFC 9457.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        faults: Sequence[Mapping[str, Any]] = (),
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        told = "".join(f"\n  {fault.get('pointer') or '/'}: {fault.get('detail')}" for fault in faults)
        super().__init__(f"{status}: {detail}{told}")
        self.status, self.detail, self.faults = status, detail, list(faults)
        self.problem = dict(problem or {})


class JobFailed(ClientError):
    """The job ended without success. error: its ``type``, ``message`` and, where there is one, ``traceback``."""

    def __init__(self, job_id: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"job {job_id} failed: {error.get('type')}: {error.get('message')}")
        self.job_id, self.error = job_id, dict(error)


class JobCancelled(ClientError):
    """The job was cancelled."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled")
        self.job_id = job_id
