"""Events as they happen, over one connection that is made anew whenever it breaks."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from brain_clusters.client.errors import Unreachable
from brain_clusters.client.rest import Rest

# The API gives a sign of life every 15 seconds.
_SILENCE_SECONDS = 45.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


def follow(rest: Rest, query: dict[str, str], after: str | None, patience: float) -> Iterator[dict[str, Any]]:
    """Yield events from now on, or after a position; see ``Client.events``."""
    for fields in follow_frames(rest, f"/api/events/stream?{urlencode(query)}", after, patience):
        yield _told(fields)


def follow_frames(rest: Rest, path: str, after: str | None, patience: float) -> Iterator[dict[str, str]]:
    """Yield the fields of each message of a stream that has data, from now on or after a place, for ever.

    Raises ApiError for a refusal, Unreachable when nobody answers for ``patience`` seconds.
    """
    place, pause = after, _FIRST_PAUSE_SECONDS
    heard_at = time.monotonic()
    while True:
        try:
            with rest.stream(path, _place(place), _SILENCE_SECONDS) as lines:
                pause = _FIRST_PAUSE_SECONDS
                for fields in _frames(lines):
                    heard_at = time.monotonic()
                    place = fields.get("id", place)
                    if "data" in fields:
                        yield fields
        except (OSError, http.client.HTTPException, ValueError) as exc:
            if time.monotonic() - heard_at > patience:
                raise Unreachable(f"the stream does not answer: {exc!r}") from exc
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that clients do not come at once
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _place(place: str | None) -> dict[str, str]:
    return {} if place is None else {"Last-Event-ID": place}


def _frames(lines: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Yield the fields of each frame; one that breaks off is none."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        else:
            yield fields
            fields = {}


def _told(fields: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fields["data"])
    return {"kind": "reset", **found} if fields.get("event") == "reset" else found
