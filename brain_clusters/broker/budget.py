"""Budgets of clusters and of job trees: reserved before a call that costs, settled after it, each in one step in Redis.

Whoever reserves first gets it, so what is spent crosses a limit by no more than what was in flight then cost beyond its
estimates. A reservation has a time at which its call is over; after it, it counts no more, so those of dead agents
bind nothing. Amounts are whole millionths of the currency, days are UTC and by the clock of Redis.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.domain.pricing import MICRO, micros
from brain_clusters.domain.specs import Budget

# Days and trees are forgotten so long after the last change.
_KEPT_SECONDS = 8 * 86_400

# date_of: the day's ISO date, by Howard Hinnant's civil_from_days.
# look: what is spent and reserved under a key; reservations whose time is over are removed.
_COMMON = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local day = math.floor(now / 86400)

local function date_of(z)
  z = z + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local y, m, d = yoe + era * 400, mp < 10 and mp + 3 or mp - 9, doy - math.floor((153 * mp + 2) / 5) + 1
  return string.format('%04d-%02d-%02d', m <= 2 and y + 1 or y, m, d)
end

local function whole(number) return string.format('%.0f', number) end

local function look(key)
  redis.call('ZREMRANGEBYSCORE', key .. ':reserved', '-inf', string.format('%.6f', now))
  local reserved = 0
  for _, member in ipairs(redis.call('ZRANGE', key .. ':reserved', 0, -1)) do
    reserved = reserved + tonumber(string.match(member, '^%d+'))
  end
  return tonumber(redis.call('GET', key) or 0), reserved
end
"""

# ARGV: a JSON object: cluster, root, member (amount:id), amount, seconds, kept, refuse; limits: {day, tree}, those that
# there are. Returns as JSON: day; refused: the limit that was in the way, with what is spent and reserved.
_RESERVE = (
    _COMMON
    + """
local asked = cjson.decode(ARGV[1])
local keys = {
  day = 'brain:budget:day:' .. asked.cluster .. ':' .. whole(day),
  tree = 'brain:budget:tree:' .. asked.root,
}

local function announce(of, spent, limit)
  local told = {spent = spent / 1e6, limit = limit / 1e6, asked = asked.amount / 1e6, at = now}
  if of == 'tree' then
    told.cluster_id = asked.cluster
    redis.call('HSETNX', 'TREES', asked.root, cjson.encode(told))
    return
  end
  told.day = date_of(day)
  local before = redis.call('HGET', 'EXCEEDED', asked.cluster)
  if before and cjson.decode(before).day == told.day then return end
  redis.call('HSET', 'EXCEEDED', asked.cluster, cjson.encode(told))
end

for _, of in ipairs({'day', 'tree'}) do
  local limit = asked.limits[of]
  if limit then
    local spent, reserved = look(keys[of])
    if spent + reserved + asked.amount > limit then
      announce(of, spent, limit)
      if asked.refuse then
        return cjson.encode({day = day, refused = of, spent = whole(spent), reserved = whole(reserved)})
      end
    end
  end
end
for _, key in pairs(keys) do
  redis.call('ZADD', key .. ':reserved', string.format('%.6f', now + asked.seconds), asked.member)
  redis.call('EXPIRE', key .. ':reserved', asked.kept)
end
return cjson.encode({day = day})
""".replace("EXCEEDED", names.BUDGET_EXCEEDED_HASH).replace("TREES", names.BUDGET_TREES_HASH)
)

# KEYS: what is spent: of the day, of the tree. ARGV: the reservation's member, the amount spent, kept.
_SETTLE = """
for _, key in ipairs(KEYS) do
  redis.call('ZREM', key .. ':reserved', ARGV[1])
  redis.call('INCRBY', key, ARGV[2])
  redis.call('EXPIRE', key, ARGV[3])
end
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """An amount that one call may spend. Settle it once."""

    cluster_id: str
    root_id: str
    day: int
    member: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a call may not begin. Amounts in the currency."""

    limit_of: Literal["day", "tree"]
    limit: float
    spent: float
    reserved: float
    estimate: float

    def __str__(self) -> str:
        """Return the whole story as a sentence."""
        what = "the cluster's budget of a day" if self.limit_of == "day" else "the budget of a tree of jobs"
        return (
            f"{what} is {self.limit:g}; {self.spent:g} is spent and {self.reserved:g} reserved by calls in flight, "
            f"and this call may cost {self.estimate:g}; raise `budget` in the blueprint, or wait"
            f"{' for the next day (UTC)' if self.limit_of == 'day' else ' for the calls in flight'}"
        )


class Budgets:
    """The budgets in one Redis. Every method raises TemporaryError when that is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def reserve(
        self, budget: Budget, cluster_id: str, root_id: str, estimate: int, seconds: float
    ) -> Reservation | Refused:
        """Reserve ``estimate`` millionths for ``seconds``, or say what is in the way.

        A budget that only alerts refuses nothing: its crossing is announced, as that of the others is.
        """
        limits = {"day": budget.per_day, "tree": budget.per_tree}
        member = f"{estimate}:{uuid.uuid4().hex}"
        asked = {
            "cluster": cluster_id, "root": root_id, "member": member, "amount": estimate, "seconds": seconds,
            "kept": _KEPT_SECONDS, "refuse": budget.on_exceeded != "alert",
            "limits": {of: micros(limit) for of, limit in limits.items() if limit is not None},
        }  # fmt: skip
        with temporary_when_away():
            reply: Any = self._client.eval(_RESERVE, 0, json.dumps(asked))
        told = json.loads(reply)
        if "refused" not in told:
            return Reservation(cluster_id, root_id, int(told["day"]), member)
        of = told["refused"]
        spent, reserved = int(told["spent"]) / MICRO, int(told["reserved"]) / MICRO
        return Refused(of, limits[of] or 0.0, spent, reserved, estimate / MICRO)

    def settle(self, reservation: Reservation, actual: int) -> None:
        """Count what the call did cost in place of what it was estimated at, on the day on which it began."""
        of_day = names.budget_day_key(reservation.cluster_id, reservation.day)
        keys = [of_day, names.budget_tree_key(reservation.root_id)]
        with temporary_when_away():
            self._client.eval(_SETTLE, len(keys), *keys, reservation.member, str(actual), str(_KEPT_SECONDS))
