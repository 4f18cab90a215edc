"""``Prefer: wait=SECONDS`` (RFC 7240): the answer comes when the operation is done, or when the time is up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import flask
from werkzeug.http import parse_list_header

from brain_clusters.api.context import control, waits
from brain_clusters.domain.states import OperationStatus
from brain_clusters.errors import TemporaryError
from brain_clusters.services import operations

MOST_SECONDS = 60
FINISHED = (OperationStatus.SUCCEEDED, OperationStatus.FAILED)
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.2


def preferred_wait(header: str) -> int:
    """Return the seconds that a Prefer header asks to wait, at most MOST_SECONDS; 0 for none.

    The first valid wait counts; everything else is ignored, as RFC 7240 has it.
    """
    for preference in parse_list_header(header):
        name, _, value = preference.partition(";")[0].partition("=")
        digits = value.strip().strip('"')
        if name.strip().lower() == "wait" and digits.isascii() and digits.isdigit():
            return min(int(digits.lstrip("0")[:6] or "0"), MOST_SECONDS)
    return 0


@contextmanager
def place_to_wait() -> Iterator[int]:
    """Yield the seconds that this request will wait: 0 when it does not ask to, or when too many wait already."""
    seconds = preferred_wait(flask.request.headers.get("Prefer", ""))
    if not seconds or not waits().acquire(blocking=False):
        yield 0
        return
    try:
        yield seconds
    finally:
        waits().release()


def until_finished(operation_id: str, seconds: float) -> None:
    """Return when the operation is finished or the time is up. Holds no transaction in between."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        with suppress(TemporaryError), control().database.transaction() as session:
            if operations.get(session, operation_id).status in FINISHED:
                return
