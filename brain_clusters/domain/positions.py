"""Places in the history of all clusters: text that callers keep and give back, and look not into."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


class Position(NamedTuple):
    """A place that events lie before or after. Compares as the events were committed, see ``services.feed``."""

    txid: int
    event_id: int

    def __str__(self) -> str:
        return f"{self.txid}-{self.event_id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that ``text`` is of; raise ValueError."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no position")
        return cls(int(found[1]), int(found[2]))
