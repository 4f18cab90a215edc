"""The Lua by which a job hands work down, waits for it outside of any agent, and goes on when the last of it has ended.

A job that waits has a hash, its join: its own message and the list where that goes back to, ``pending``, ``round``,
``state``, ``started_at``, ``usage``, ``ids`` in order, and a field ``c:<id>`` for each child: "" until it has ended,
then its status, result and error, a line each: a child's record may expire before the last one ends.
``round`` in a job's record says that there is or was a join; ``waiting_for`` how many are pending. 0 there is for the
next delivery: it is no further attempt.
"""

from __future__ import annotations

from brain_clusters.broker import names


def quoted(text: str) -> str:
    """Return ``text`` as Lua 5.1 writes it."""
    return "'" + "".join(char if char.isprintable() else f"\\{ord(char):03d}" for char in text) + "'"


def named(script: str) -> str:
    """Put in the names of keys."""
    parts = {
        "JOB_KEY": names.job_key(""),
        "JOIN_KEY": names.join_key(""),
        "TREE_KEY": names.tree_key(""),
        "CANCEL_KEY": names.cancel_key(""),
        "HIGH": names.high_list(""),
        "SEPARATOR": names.PRIORITY_SEPARATOR,
    }
    for word, name in parts.items():
        script = script.replace(f"<{word}>", quoted(name))
    return script


# outcome_of(child): what its join keeps of it.
# go_on(parent): put its message back as the next of its list. Once: the message leaves the join.
# joined(parent, child[, outcome]): called in the script that records the outcome of ``child``, whose options name
# ``parent``. outcome: as outcome_of tells it, where the record does not tell it yet.
# left(job, ttl): called in the script that records the outcome of a job that has a round.
JOINED = named("""
local function outcome_of(child)
  local is = redis.call('HMGET', <JOB_KEY> .. child, 'status', 'result', 'error')
  return (is[1] or '') .. '\\n' .. (is[2] or '') .. '\\n' .. (is[3] or '')
end

local function go_on(parent)
  local join = <JOIN_KEY> .. parent
  local kept = redis.call('HMGET', join, 'list', 'message')
  if not kept[2] then return end
  redis.call('RPUSH', kept[1], kept[2])
  redis.call('HDEL', join, 'message')
end

local function joined(parent, child, outcome)
  local join, place = <JOIN_KEY> .. parent, 'c:' .. child
  if redis.pcall('HGET', join, place) ~= '' then return end
  redis.call('HSET', join, place, outcome or outcome_of(child))
  local pending = redis.call('HINCRBY', join, 'pending', -1)
  redis.pcall('HSET', <JOB_KEY> .. parent, 'waiting_for', pending)
  if pending == 0 then go_on(parent) end
end

local function left(job, ttl)
  redis.call('UNLINK', <JOIN_KEY> .. job)
  redis.call('EXPIRE', <TREE_KEY> .. job, ttl)
end
""")
