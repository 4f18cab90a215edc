"""Cancelling a job while its handler waits for somebody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import JobCancelled
from brain_clusters.agent.flight import Flight


def ends_when_cancelled(context: JobContext, until: Callable[..., Any], asked: object, work: Callable[[], Any]) -> None:
    """Do ``work`` for the job of ``context``, cancel it as soon as ``asked`` holds something, and see it end."""
    flight = Flight(context, None)

    def cancel() -> None:
        until(lambda: asked, "the request")
        flight.ask(JobCancelled, 60)

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(JobCancelled):
        work()
    thread.join()
