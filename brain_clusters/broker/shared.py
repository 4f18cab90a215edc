"""The memory that the agents of one cluster share: values by key in Redis, bounded in size and in age.

Three keys a cluster: a hash of the values, a sorted set of when each ends (by Redis's clock), and the sum of their
sizes. Every change is one script, so that the bound holds however many agents write at once.
"""

from __future__ import annotations

import json
import math
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.domain.sharing import SharedMemory
from brain_clusters.errors import PermanentError

KEY_LIMIT_BYTES = 512

# KEYS: values, ends, size. What has ended is forgotten with the next write, or when somebody asks for it.
_COMMON = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function forget(key)
  local value = redis.call('HGET', KEYS[1], key)
  if not value then return 0 end
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('DECRBY', KEYS[3], #key + #value)
  return 1
end

local function forget_ended()
  repeat
    local ended = redis.call('ZRANGE', KEYS[2], '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, 1000)
    for _, key in ipairs(ended) do forget(key) end
  until #ended < 1000
end

local function value_of(key)
  local ends = redis.call('ZSCORE', KEYS[2], key)
  return ends and tonumber(ends) > now and redis.call('HGET', KEYS[1], key) or false
end

-- Returns {whether it was kept, how much there is of it}. What is refused leaves everything as it was.
local function keep(key, value, limit, seconds)
  forget_ended()
  local before = redis.call('HGET', KEYS[1], key)
  local used = tonumber(redis.call('GET', KEYS[3]) or 0)
  local grown = used + #value - (before and #before or -#key)
  if grown > limit then return {0, used} end
  redis.call('SET', KEYS[3], string.format('%.0f', grown))
  redis.call('HSET', KEYS[1], key, value)
  redis.call('ZADD', KEYS[2], string.format('%.6f', now + seconds), key)
  return {1, grown}
end
"""
# ARGV: key.
_GET = _COMMON + "return value_of(ARGV[1])"
# ARGV: key, value, limit, seconds.
_SET = _COMMON + "return keep(ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))"
# ARGV: key. What has ended was not there any more.
_DELETE = _COMMON + "local there = value_of(ARGV[1]); forget(ARGV[1]); return there and 1 or 0"
# ARGV: key, by, limit, seconds. Returns {kept, used, the new number}, or {-1} where the value is no number.
_INCR = (
    _COMMON
    + """
local before = value_of(ARGV[1]) or '0'
local number = string.match(before, '^-?%d') and tonumber(before)
if not number then return {-1} end
local after = number + tonumber(ARGV[2])
local whole = after == math.floor(after) and math.abs(after) < 2^53
local value = string.format(whole and '%.0f' or '%.17g', after)
local kept = keep(ARGV[1], value, tonumber(ARGV[3]), tonumber(ARGV[4]))
return {kept[1], kept[2], value}
"""
)
# ARGV: prefix, whether the values are asked for. Returns the keys, each with its value if asked, in no order.
_LIST = (
    _COMMON
    + """
local found = {}
for _, key in ipairs(redis.call('ZRANGE', KEYS[2], '(' .. string.format('%.6f', now), '+inf', 'BYSCORE')) do
  if string.sub(key, 1, #ARGV[1]) == ARGV[1] then
    found[#found + 1] = key
    if ARGV[2] == '1' then found[#found + 1] = redis.call('HGET', KEYS[1], key) or 'null' end
  end
end
return found
"""
)


class MemoryFull(PermanentError):
    """A value does not fit into the cluster's memory any more."""


class ClusterStore:
    """The memory of one cluster. Values are JSON. Raises TemporaryError when Redis is away."""

    def __init__(self, client: redis.Redis, cluster_id: str, bounds: SharedMemory) -> None:
        self._client, self._bounds = client, bounds
        self._keys = names.memory_keys(cluster_id)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` where there is none."""
        found = self._run(_GET, _key(key))
        return default if found is None else json.loads(found)

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep ``value`` for ``ttl`` seconds, at most the blueprint's retention. Raises MemoryFull and ValueError."""
        self._check(key, self._run(_SET, _key(key), _json(value), *self._bound(ttl)))

    def delete(self, key: str) -> bool:
        """Forget ``key``; return whether it was there."""
        return bool(self._run(_DELETE, _key(key)))

    def incr(self, key: str, by: float = 1, ttl: float | None = None) -> float:
        """Add ``by`` to the number at ``key``, 0 where there is none, and return the sum; one step for all agents.

        It is a write like ``set``: the time to keep it begins anew. Raises MemoryFull, and ValueError for no number.
        """
        if isinstance(by, bool) or not isinstance(by, (int, float)) or not math.isfinite(by):
            raise ValueError(f"incr adds a number, and {by!r} is none")
        reply = self._run(_INCR, _key(key), repr(by), *self._bound(ttl))
        if reply[0] == -1:
            raise ValueError(f"the value of {key!r} is not a number, so nothing can be added to it")
        self._check(key, reply)
        number: float = json.loads(reply[2])
        return number

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with ``prefix``, sorted."""
        return sorted(key.decode() for key in self._run(_LIST, prefix.encode(), "0"))

    def items(self, prefix: str = "") -> dict[str, Any]:
        """Return the keys that begin with ``prefix`` with their values."""
        found = self._run(_LIST, prefix.encode(), "1")
        pairs = zip(found[::2], found[1::2], strict=True)
        return {key.decode(): json.loads(value) for key, value in sorted(pairs)}

    def _bound(self, ttl: float | None) -> tuple[str, str]:
        retention = self._bounds.retention_seconds
        if ttl is not None and not ttl > 0:
            raise ValueError(f"ttl is a number of seconds above 0, and was {ttl!r}")
        return str(self._bounds.size_bytes), repr(retention if ttl is None else min(float(ttl), retention))

    def _check(self, key: str, reply: Any) -> None:
        if not reply[0]:
            limit = self._bounds.size_bytes
            raise MemoryFull(
                f"{key!r} does not fit into the cluster's memory: {reply[1]} of {limit} bytes are used; delete keys, "
                "or raise resources.memory.size in a new version of the blueprint"
            )

    def _run(self, script: str, *values: str | bytes) -> Any:
        with temporary_when_away():
            return self._client.eval(script, len(self._keys), *self._keys, *values)


def forget(client: redis.Redis, cluster_ids: list[str]) -> None:
    """Delete the memory of clusters that are destroyed."""
    with temporary_when_away():
        if cluster_ids:
            client.delete(*(key for cluster_id in cluster_ids for key in names.memory_keys(cluster_id)))


def _key(key: str) -> bytes:
    if not isinstance(key, str) or not 1 <= len(key.encode(errors="replace")) <= KEY_LIMIT_BYTES:
        raise ValueError(f"a key is a text of 1 to {KEY_LIMIT_BYTES} bytes")
    return key.encode(errors="replace")


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the memory keeps JSON only: {exc}") from exc
