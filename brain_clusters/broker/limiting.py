"""How often somebody may do something in a while, counted in Redis for all processes together.

A window begins with the first of its uses. Each process takes uses from the common count a few at a time and spends
them by itself, so that most uses ask nobody; what it took and did not spend is lost with the window. So together they
never allow more than the limit. With Redis away each process counts for itself: nobody is refused for that.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import redis

from brain_clusters.broker.client import temporary_when_away
from brain_clusters.errors import TemporaryError

# KEYS: the count. ARGV: how many are asked for, the limit, the window in ms. Returns how many are given, the count
# then, and the ms that are left.
_TAKE = """
local used, left = tonumber(redis.call('GET', KEYS[1]) or 0) or 0, redis.call('PTTL', KEYS[1])
local limit = tonumber(ARGV[2])
local given = math.max(0, math.min(tonumber(ARGV[1]), limit - used))
if left < 0 then
  redis.call('SET', KEYS[1], used + given, 'PX', ARGV[3])
  left = tonumber(ARGV[3])
elseif given > 0 then
  redis.call('INCRBY', KEYS[1], given)
end
return {given, used + given, left}
"""
_PREFIX = "brain:limit:"
# The part of a limit that a process takes at once.
_PART = 0.01
_MOST_KNOWN = 10_000
# A Redis that was away is not asked again for so long: each asking may wait for it.
_AWAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Limit:
    """So many uses in a window of ``seconds``. name: what is limited, for keys and headers."""

    name: str
    uses: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one more use is allowed. left: how many are after it; reset_seconds: until the window is over."""

    allowed: bool
    limit: Limit
    left: int
    reset_seconds: float


@dataclass(slots=True)
class _Window:
    """What a process knows of one count. own: uses that it took and may spend; used: the common count as last seen."""

    ends_at: float
    own: int = 0
    used: int = 0


class Limiter:
    """Counts uses. Safe to share by threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._take = client.register_script(_TAKE)
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}
        self._away_until = 0.0

    def use(self, limit: Limit, who: str) -> Verdict:
        """Count one use of ``who`` and return whether it is allowed."""
        key, now = (limit.name, who), time.monotonic()
        with self._lock:
            window = self._windows.get(key)
            if window is not None and now < window.ends_at and (window.own > 0 or window.used >= limit.uses):
                return self._spend(window, limit, now)
        fresh = self._fetch(limit, who, now, window)
        with self._lock:
            if len(self._windows) >= _MOST_KNOWN:
                self._windows.clear()  # the common count stays
            # Another thread may have fetched meanwhile: what both were given is theirs to spend.
            known = self._windows.get(key)
            fresh.own += known.own if known is not None and known is not window and now < known.ends_at else 0
            self._windows[key] = fresh
            return self._spend(fresh, limit, now)

    def blocked(self, limit: Limit, who: str) -> float:
        """Return for how many more seconds this process knows that ``who`` has used up ``limit``; 0 for not."""
        now = time.monotonic()
        with self._lock:
            window = self._windows.get((limit.name, who))
            used_up = window is not None and window.own <= 0 and window.used >= limit.uses
            return max(0.0, window.ends_at - now) if window is not None and used_up else 0.0

    def _fetch(self, limit: Limit, who: str, now: float, before: _Window | None) -> _Window:
        if now >= self._away_until:
            try:
                part = max(1, math.floor(limit.uses * _PART))
                with temporary_when_away():
                    given, used, left = self._take(
                        keys=[f"{_PREFIX}{limit.name}:{who}"], args=[part, limit.uses, limit.seconds * 1000]
                    )
                return _Window(now + left / 1000, int(given), int(used))
            except TemporaryError:
                self._away_until = now + _AWAY_SECONDS
        if before is not None and now < before.ends_at:
            # It goes on by itself with what nobody is known to have used.
            return _Window(before.ends_at, limit.uses - before.used, limit.uses)
        return _Window(now + limit.seconds, limit.uses, limit.uses)

    @staticmethod
    def _spend(window: _Window, limit: Limit, now: float) -> Verdict:
        allowed = window.own > 0
        window.own -= allowed
        return Verdict(allowed, limit, max(0, limit.uses - window.used) + window.own, max(0.0, window.ends_at - now))
