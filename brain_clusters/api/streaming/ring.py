"""The newest events in memory, for all listeners of a process."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence

from brain_clusters.api.streaming.frames import Chunk, Frame
from brain_clusters.domain.positions import Position

_MOST_AT_ONCE = 64


class Ring:
    """All events after a place, the oldest of them given up beyond ``most``. Thread-safe; empty until it begins."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._frames: list[Frame] = []
        self._places: list[Position] = []
        # Complete after the first and up to the second; None before it begins.
        self._span: tuple[Position, Position] | None = None

    @property
    def head(self) -> Position | None:
        """The place that it is complete up to."""
        return self._span and self._span[1]

    def begin(self, base: Position) -> None:
        """Hold what comes after ``base``, and nothing of before."""
        with self._changed:
            self._frames, self._places, self._span = [], [], (base, base)

    def clear(self) -> None:
        """Hold nothing until it begins anew."""
        with self._changed:
            self._frames, self._places, self._span = [], [], None

    def extend(self, chunk: Chunk) -> None:
        """Add what comes after ``head``."""
        with self._changed:
            assert self._span is not None  # noqa: S101 - begin() came before
            self._frames += chunk.frames
            self._places += [frame.position for frame in chunk.frames]
            base = self._span[0]
            if len(self._frames) > 2 * self._most:  # not one by one: each time moves all
                gone = len(self._frames) - self._most
                base = self._places[gone - 1]
                del self._frames[:gone], self._places[:gone]
            self._span = (base, max(self._span[1], chunk.upto))
            self._changed.notify_all()

    def since(self, position: Position) -> Chunk | None:
        """Return what comes after ``position``, a few at a time; None when some of it is not here."""
        with self._changed:
            if self._span is None or position < self._span[0]:
                return None
            begin = bisect_right(self._places, position)
            found: Sequence[Frame] = self._frames[begin : begin + _MOST_AT_ONCE]
            more = begin + len(found) < len(self._frames)
            return Chunk(found, found[-1].position if more else max(position, self._span[1]), more)

    def wait_beyond(self, position: Position, seconds: float) -> None:
        """Return when there is something after ``position``, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._places) and self._places[-1] > position, seconds)
