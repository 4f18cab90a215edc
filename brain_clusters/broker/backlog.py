"""Everything that can be counted, for all clusters, in one pipeline. Scripts keep it at a few commands a chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away

# Each script call blocks Redis; a thousand queues are about 2 ms.
_CHUNK = 1000

# KEYS: queues. ARGV: the suffixes of the priority lists. Returns length, and when the oldest tail was published, as
# JSON: one reply that C reads instead of thousands that Python does.
_LENGTHS = """
local found = {}
for i = 1, #KEYS do
  local length, oldest = 0, false
  for j = 1, #ARGV do
    local list = KEYS[i] .. ARGV[j]
    local n = redis.call('LLEN', list)
    if n > 0 then
      length = length + n
      local stamp = string.match(redis.call('LINDEX', list, -1), '"HEADER": ([0-9.]+)') or ''
      if tonumber(stamp) and (not oldest or tonumber(stamp) < tonumber(oldest)) then oldest = stamp end
    end
  end
  found[i] = {length, oldest}
end
return cjson.encode(found)
""".replace("HEADER", names.PUBLISHED_HEADER)

# KEYS: owners. Returns how many messages each holds, claimed ones included.
_HELD = """
local found = {}
for i = 1, #KEYS do
  found[i] = redis.call('HLEN', 'brain:unacked:' .. KEYS[i]) + redis.call('LLEN', 'brain:claim:' .. KEYS[i])
end
return cjson.encode(found)
"""


# KEYS: queues. ARGV: a time, then the suffixes. Returns how many tail messages are older or bear no stamp.
_WAITING_SINCE = """
local found = {}
for i = 1, #KEYS do
  local old = 0
  for j = 2, #ARGV do
    local list = KEYS[i] .. ARGV[j]
    local length = redis.call('LLEN', list)
    for k = 1, length do
      local stamp = tonumber(string.match(redis.call('LINDEX', list, -k), '"HEADER": ([0-9.]+)') or '')
      if stamp and stamp >= tonumber(ARGV[1]) then break end
      if k > 1000 then old = old + length - k + 1 break end
      old = old + 1
    end
  end
  found[i] = old
end
return found
""".replace("HEADER", names.PUBLISHED_HEADER)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Jobs that wait in a queue, and when the oldest stamped one was published (seconds since the epoch)."""

    length: int
    oldest_published_at: float | None
    held: int = 0
    next_due_at: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at Redis found. A beat that is not there is absent, not zero. now: Redis's clock, in seconds."""

    now: float
    queues: dict[str, QueueDepth]
    held: dict[str, int]
    beats: dict[str, dict[str, Any]]


def read(client: redis.Redis, queues: Sequence[str], agent_ids: Sequence[str]) -> Reading:
    """Read the depth of ``queues`` and, for ``agent_ids``, what they hold and their beats.

    Raises TemporaryError when Redis is away: an error is never an empty queue.
    """
    with temporary_when_away():
        pipe = client.pipeline(transaction=False)
        pipe.time()
        suffixes = [name[1:] for name in names.priority_lists("q")]
        for chunk in _chunks(queues):
            pipe.eval(_LENGTHS, len(chunk), *chunk, *suffixes)
        for chunk in _chunks(agent_ids):
            pipe.eval(_HELD, len(chunk), *chunk)
            pipe.mget([names.beat_key(agent_id) for agent_id in chunk])
        replies = iter(pipe.execute())
    seconds, micros = next(replies)
    depths = {
        queue: _depth(found)
        for chunk in _chunks(queues)
        for queue, found in zip(chunk, json.loads(next(replies)), strict=True)
    }
    held: dict[str, int] = {}
    beats: dict[str, dict[str, Any]] = {}
    for chunk in _chunks(agent_ids):
        held.update(zip(chunk, json.loads(next(replies)), strict=True))
        read_beats = zip(chunk, map(_beat, next(replies)), strict=True)
        beats.update({owner: beat for owner, beat in read_beats if beat is not None})
    return Reading(seconds + micros / 1e6, depths, held, beats)


def waiting_since(client: redis.Redis, queues: Sequence[str], before: float) -> dict[str, int]:
    """Return how many jobs of each queue were published before a time (seconds since the epoch), or bear no stamp.

    Exact for the thousand oldest of a list; what lies behind those counts as old.
    """
    with temporary_when_away():
        suffixes = [name[1:] for name in names.priority_lists("q")]
        found: Any = client.eval(_WAITING_SINCE, len(queues), *queues, str(before), *suffixes)
    return dict(zip(queues, found, strict=True))


# What a beat must say, and what it may say, as numbers.
_BEAT_NUMBERS = ("completed", "failed", "in_flight", "idle_since")
_BEAT_MAYBE = ("service_time", "cpu", "memory", "at")


def _beat(raw: bytes | None) -> dict[str, Any] | None:
    """Return a beat, or None for none and for one that makes no sense: agents run users' code, which can write here."""
    if raw is None:
        return None
    try:
        found = json.loads(raw)
        numbers = {key: float(found[key]) for key in _BEAT_NUMBERS}
        maybe = {key: None if found.get(key) is None else float(found[key]) for key in _BEAT_MAYBE}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    given = [*numbers.values(), *(value for value in maybe.values() if value is not None)]
    if not all(0 <= value < 2**53 for value in given):  # NaN is neither
        return None
    counters = {key: int(numbers[key]) for key in ("completed", "failed", "in_flight")}
    state = "busy" if counters["in_flight"] else "idle"
    return {**numbers, **maybe, **counters, "state": state}


def _chunks(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    iterator = iter(items)
    while chunk := tuple(islice(iterator, _CHUNK)):
        yield chunk


def _depth(found: list[Any]) -> QueueDepth:
    return QueueDepth(int(found[0]), float(found[1]) if found[1] else None)


def purge(client: redis.Redis, queues: Sequence[str]) -> None:
    """Delete ``queues`` with all that waits in them."""
    lists = [name for queue in queues for name in names.priority_lists(queue)]
    with temporary_when_away():
        if lists:
            client.delete(*lists)
