"""Single keys of a terminal, read while something is shown."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any


class Keyboard:
    """Reads keys without Enter and without showing them; leaves the terminal as it was. Ctrl-C stays Ctrl-C."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] = []
        self._typed = ""

    def wait(self, seconds: float) -> str | None:
        """Return the next key, None when none is pressed within ``seconds``."""
        if self._typed:
            return self._next()
        files = [] if self._file is None else [self._file]
        ready, _, _ = select.select(files, [], [], seconds)
        if not ready or self._file is None:
            return None
        self._typed = os.read(self._file, 32).decode(errors="replace")
        if not self._typed:
            self._file = None  # nobody types there any more
            return None
        return self._next()

    def _next(self) -> str:
        key, self._typed = self._typed[0], self._typed[1:]
        return key

    def __enter__(self) -> Keyboard:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file, termios.TCSANOW)  # and so what was typed ahead is kept
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before and sys.stdin.isatty():
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
