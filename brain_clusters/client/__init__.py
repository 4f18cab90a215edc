"""For other programs: jobs sent and followed by REST, pushed into Redis directly, or sent by Celery and stamped.

Imports nothing but the standard library until it is asked::

    from brain_clusters.client import Client

    client = Client("http://127.0.0.1:8080")
    print(client.submit("shop", {"n": 1}, to="Packer").result(timeout=30))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brain_clusters.client.errors import ApiError, ClientError, JobCancelled, JobFailed, Unreachable
from brain_clusters.client.jobs import Client, Job

if TYPE_CHECKING:
    from brain_clusters.client.queue import Queue
    from brain_clusters.client.stamping import stamp

__all__ = ["ApiError", "Client", "ClientError", "Job", "JobCancelled", "JobFailed", "Queue", "Unreachable", "stamp"]


def __getattr__(name: str) -> Any:
    """Import what brings half of the system with it when somebody wants it: who asks the API does not."""
    if name == "Queue":
        from brain_clusters.client.queue import Queue

        return Queue
    if name == "stamp":
        from brain_clusters.client.stamping import stamp

        return stamp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
