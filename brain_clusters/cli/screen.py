"""The demo's live display: bars on a terminal, a line whenever something changed where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

_WIDTH = 40
_LINE_SECONDS = 0.5


class Screen:
    """Shows one act after another, and below the present one the cluster's state."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=12, transient=True)
        self._began = time.monotonic()
        self._last_line = ""
        self._last_at = 0.0

    def act(self, title: str) -> None:
        """Begin an act."""
        self._console.print(f"[bold]{time.monotonic() - self._began:5.1f} s[/]  {title}", soft_wrap=True)

    def show(self, cluster: dict[str, Any], backlog: dict[str, int], *, sent: int, done: int, of: int) -> None:
        """Show the cluster as it is now."""
        agents, waiting, running = cluster["current_workers"], backlog["waiting"], backlog["running"]
        line = (
            f"{cluster['status']:<12} agents {agents:>2} of {cluster['target_workers']:>2}   "
            f"waiting {waiting:>4}   running {running:>2}   sent {sent:>4}   done {done:>4} of {of}"
        )
        if self._console.is_terminal:
            bars = (("agents", agents, 9, "green"), ("backlog", waiting, of, "yellow"), ("done", done, of, "blue"))
            self._live.update(Group(Text(f"         {line}"), *(_bar(*bar) for bar in bars)))
        elif line != self._last_line and time.monotonic() - self._last_at >= _LINE_SECONDS:
            self._last_at, self._last_line = time.monotonic(), line
            self._console.print(f"         {line}", soft_wrap=True)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()


def _bar(name: str, value: int, most: int, colour: str) -> Text:
    filled = min(_WIDTH, round(_WIDTH * value / max(most, 1)))
    return Text.assemble(f"         {name:<8} ", ("█" * filled, colour), ("░" * (_WIDTH - filled), "dim"), f" {value}")
