"""What clusters spend besides calls of models, counted into the day that ``broker.budget`` reserves from.

So a call is refused when the hours of agents have used the budget up, too. Amounts are whole millionths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import replies, temporary_when_away

# A day's count is of no use any more when the next is over.
_KEPT_SECONDS = 8 * 86_400
# KEYS: what was spent on the day, and the part of it that was counted here. ARGV: that part now, kept.
# Told again, or by two at once, it is counted once. What is no number, as users' code can write there, begins anew.
# Returns all that was spent.
_COUNT = """
local before = redis.pcall('GET', KEYS[2])
local part = type(before) == 'string' and tonumber(before) or 0
local spent = redis.pcall('INCRBY', KEYS[1], string.format('%.0f', tonumber(ARGV[1]) - part))
if type(spent) ~= 'number' then
  redis.call('SET', KEYS[1], ARGV[1])
  spent = tonumber(ARGV[1])
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return spent
"""


def count(client: redis.Redis, day: date, parts: Mapping[str, int]) -> dict[str, int]:
    """Set what clusters spent on ``day`` by hours and by finished jobs; return by cluster all that they spent."""
    number = (day - date(1970, 1, 1)).days
    with temporary_when_away():
        pipe = client.pipeline(transaction=False)
        for cluster_id, part in parts.items():
            key = names.budget_day_key(cluster_id, number)
            pipe.eval(_COUNT, 2, key, f"{key}:hours", str(part), str(_KEPT_SECONDS))
        return dict(zip(parts, map(int, pipe.execute()), strict=True))


def refused(client: redis.Redis) -> dict[str, dict[str, Any]]:
    """Return the clusters where a call was refused, or would have been, as it would have crossed the day's budget."""
    return _hash(client, names.BUDGET_EXCEEDED_HASH)


def take_trees(client: redis.Redis) -> dict[str, dict[str, Any]]:
    """Return the trees of jobs whose budget was crossed since the last call, by root."""
    found = _hash(client, names.BUDGET_TREES_HASH)
    with temporary_when_away():
        # The mark stays, emptied, so that a tree is told of once; it goes with what its tree spent.
        if found:
            client.hset(names.BUDGET_TREES_HASH, mapping=dict.fromkeys(found, "told"))
            client.expire(names.BUDGET_TREES_HASH, _KEPT_SECONDS)
    return found


def _hash(client: redis.Redis, key: str) -> dict[str, dict[str, Any]]:
    """Return what makes sense of a hash: agents run users' code, which can write there."""
    with temporary_when_away():
        [raw] = replies(client.pipeline(transaction=False).hgetall(key))
    found = {}
    for name, text in (raw or {}).items():
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict):
            found[name.decode(errors="replace")] = told
    return found
