"""For programs that send jobs by Celery themselves: one line, and each message says since when it waits.

Without it such jobs count by number; with it their age counts, too::

    app = Celery(broker="redis://...")
    brain_clusters.client.stamp(app)
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from brain_clusters.broker import names

if TYPE_CHECKING:
    from celery import Celery


def stamp(app: Celery | None = None) -> None:  # noqa: ARG001 - Celery tells the task's name, not the app
    """Let every task that this process publishes bear the time of its publication, or its ETA if that is later.

    Celery's signal is one for the process and does not tell which app publishes, so all its apps do so, whichever is
    named; to others the header means nothing. Calling it again changes nothing.
    """
    from celery.signals import before_task_publish

    before_task_publish.connect(_stamp, weak=False, dispatch_uid="brain_clusters.client.stamp")


def _stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Write the stamp over any that is there: a retry inherits the headers of the delivery that it repeats."""
    if headers is None:
        return
    headers[names.PUBLISHED_HEADER] = max(time.time(), _eta(headers.get("eta")))
    headers.pop("redelivered", None)  # inherited likewise, and not true of a new message


def _eta(text: object) -> float:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    return 0.0 if found is None else (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
