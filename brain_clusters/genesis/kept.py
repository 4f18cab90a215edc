"""One agent of a host: what its engine shows of it, and what it was told."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from brain_clusters.genesis.desk import Ended
from brain_clusters.genesis.driver import Sighting

log = logging.getLogger(__name__)

# An agent that had begun to leave when it was told to go on is gone before then.
_LEAVING_SECONDS = 10.0


@dataclass(slots=True)
class Kept:
    """An agent of this host.

    drains: what it was told last, None when it may have been told something, by an earlier host or by a call that
    failed; told_at: when that was. asked_to_leave: whether it may have been told to end, which is final; stopped:
    whether it surely was. killed_at: when it was last killed. lost: it ended with
    an earlier host. Times are monotonic seconds.
    """

    sighting: Sighting
    ready: bool = False
    drains: bool | None = False
    told_at: float | None = None
    asked_to_leave: bool = False
    stopped: bool = False
    killed_at: float | None = None
    lost: bool = False

    @property
    def agent_id(self) -> str:
        """Its name, on the engine too."""
        return self.sighting.agent_id

    @property
    def may_be_told(self) -> bool:
        """Whether it has not been told to end."""
        return not self.stopped

    def note_told(self, *, drains: bool | None) -> None:
        """Note that it was told to drain, or to go on; None: that it is being told."""
        self.drains, self.told_at = drains, time.monotonic()

    @property
    def left_as_asked(self) -> bool:
        """Whether its end is what it was asked for, be it that it was told to go on a moment too late."""
        if self.lost or self.asked_to_leave or self.drains:
            return True
        return self.sighting.code in (0, None) and _within(self.told_at, _LEAVING_SECONDS)

    def obituary(self, last_words: str) -> Ended:
        """Return what is told of it once it is gone: whether it left as asked, and else why it died.

        last_words: the end of its log, which is told where it ran.
        """
        reason, code = self.sighting.reason, self.sighting.code
        if self.left_as_asked:
            return Ended(self.agent_id, asked=True, error=reason if code is None else None)
        error = reason or "ended unasked"
        if last_words and (code is not None or reason is None):
            error = f"{error}; its log ends: {last_words[-500:]}"
        log.warning("an agent died: %s", error, extra={"agent_id": self.agent_id})
        return Ended(self.agent_id, asked=False, error=error)


def _within(since: float | None, seconds: float) -> bool:
    return since is not None and time.monotonic() - since < seconds
