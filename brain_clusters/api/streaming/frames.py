"""Server-Sent Events (the HTML standard, section 9.2): what goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brain_clusters.api import views
from brain_clusters.api.context import encoded
from brain_clusters.domain.positions import Position
from brain_clusters.services.feed import Batch, Entry

_RETRY_MILLISECONDS = 2000


@dataclass(frozen=True, slots=True)
class Frame:
    """An event as it is sent, and what listeners choose by."""

    position: Position
    cluster_id: str | None
    kind: str
    tags: tuple[str, ...] | None
    data: bytes


Choice = Callable[[Frame], bool]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames in order, all there are up to ``upto``. more: there are others after it."""

    frames: Sequence[Frame]
    upto: Position
    more: bool


def chunk_of(batch: Batch) -> Chunk:
    """Return a batch of events as frames."""
    return Chunk([_frame(entry) for entry in batch.entries], batch.upto, batch.more)


def _frame(entry: Entry) -> Frame:
    event = entry.event
    data = f"id: {entry.position}\ndata: {encoded(views.event(event))}\n\n".encode()
    return Frame(entry.position, event.cluster_id, event.kind, entry.tags, data)


def hello(position: Position) -> bytes:
    """Return what a stream begins with. From here on a client knows where it is, if nothing comes, too."""
    return f"retry: {_RETRY_MILLISECONDS}\nid: {position}\n\n".encode()


def reset(position: Position) -> bytes:
    """Return the notice that events before ``position`` are lost to this listener."""
    reason = "events after the place you named are not kept any more; read anew what you show"
    told = {"reason": reason, "position": str(position)}
    return f"id: {position}\nevent: reset\ndata: {json.dumps(told)}\n\n".encode()


def beat(position: Position) -> bytes:
    """Return a sign of life. It moves the place of a client on that chose by a filter and got nothing."""
    return f": beat\nid: {position}\n\n".encode()
