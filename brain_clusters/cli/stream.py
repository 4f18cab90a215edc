"""Server-sent events, followed across breaks without a gap: each connection begins after the last id that was read."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from brain_clusters.cli.client import ApiClient
from brain_clusters.errors import TemporaryError

# The server sends a comment more often than that.
_SILENCE_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_MOST_PAUSE_SECONDS = 10.0


class Message(NamedTuple):
    """One message. kind: its event's name; id: where a reader goes on after it."""

    kind: str
    data: str
    id: str | None


def follow(api: ApiClient, path: str, last_id: str | None = None) -> Iterator[Message]:
    """Yield messages until the reader has enough of them. Raises our errors when the first connection is refused.

    An answer that ends by itself with the event ``end`` has nothing more to say.
    """
    pause, began = _PAUSE_SECONDS, False
    while True:
        try:
            headers = {} if last_id is None else {"Last-Event-ID": last_id}
            answer = api.stream(path, headers, _SILENCE_SECONDS)
            began = True
            for message in parse(_lines(answer)):
                pause, last_id = _PAUSE_SECONDS, message.id or last_id
                if message.kind == "end":
                    return
                yield message
        except (TemporaryError, OSError, http.client.HTTPException):
            if not began:
                raise
        finally:
            api.close()
        time.sleep(pause)
        pause = min(pause * 2, _MOST_PAUSE_SECONDS)


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of a stream [WHATWG HTML, 9.2.6]; comments and what has no data are passed over."""
    kind, data, last = "message", list[str](), None
    for line in lines:
        if not line:
            if data:
                yield Message(kind, "\n".join(data), last)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            last = value


def _lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    while line := answer.readline():
        yield line.decode("utf-8", "replace").rstrip("\r\n")
