"""The Lua by which a job hands work down, waits for it outside of any agent, and goes on when the last of it has ended.

A job that waits has a hash, its join: its own message and the list where that goes back to, ``pending``, ``round``,
``state``, ``started_at``, ``ids`` in their order, and a field ``c:<id>`` for each child: "" while it has not ended, then
its status, result and error, a line each. They are copied, since a child's record may expire before the last one ends.
``round`` in a job's record says that there is or was a join; ``waiting_for`` how many are pending. 0 there is for the
next delivery: it is no further attempt.
"""

from __future__ import annotations

from brain_clusters.broker import names


def quoted(text: str) -> str:
    """Return ``text`` as Lua 5.1 writes it."""
    return "'" + "".join(char if char.isprintable() else f"\\{ord(char):03d}" for char in text) + "'"


def _named(script: str) -> str:
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
# joined(parent, child): called in the script that records the outcome of ``child``, whose options name ``parent``.
# left(job, ttl): called in the script that records the outcome of a job that has a round.
JOINED = _named("""
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

local function joined(parent, child)
  local join, place = <JOIN_KEY> .. parent, 'c:' .. child
  if redis.pcall('HGET', join, place) ~= '' then return end
  redis.call('HSET', join, place, outcome_of(child))
  local pending = redis.call('HINCRBY', join, 'pending', -1)
  redis.call('HSET', <JOB_KEY> .. parent, 'waiting_for', pending)
  if pending == 0 then go_on(parent) end
end

local function left(job, ttl)
  redis.call('UNLINK', <JOIN_KEY> .. job)
  redis.call('EXPIRE', <TREE_KEY> .. job, ttl)
end
""")

# KEYS: the parent's record, its join, its tree, the stream of what was handed down, the owner's unacked hash. ARGV:
# parent, root, tag, round; the most jobs of the tree; ttl of records and of joins; the stream's limit; state; started_at;
# cluster, group; ids; then for each child id, group, list, message, and the stream's entry.
#
# Returns one of {'waits', pending}; {'cancelled'}: it or one above it is to be cancelled; {'full', how many}: the tree;
# {'over'}: another delivery of the same job handed the same down already, or ended; {'gone'}: the message is not held
# here any more, and another agent does the job.
#
# Ids are the same in every attempt, so a child that is there already is not handed down again. The parent's message is
# kept as the text that it came as, with two marks: it goes on, and it has not waited all the time.
HAND_DOWN = _named(
    "FINISHED"
    + JOINED
    + """
local record, join, tree, stream, unacked = unpack(KEYS)
local parent, root, tag, round = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, ttl, join_ttl, limit = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local first = 14

local function is_cancelled()
  local above = parent
  for _ = 1, 100 do
    if redis.call('EXISTS', <CANCEL_KEY> .. above) == 1 then return true end
    above = redis.call('HGET', tree, above)
    if not above then break end
  end
  return redis.call('EXISTS', <CANCEL_KEY> .. root) == 1
end

local function list_of(queue, message)
  if string.sub(queue, -#<HIGH>) == <HIGH> then return queue end
  local sound, found = pcall(cjson.decode, message)
  local properties = sound and type(found) == 'table' and found.properties
  local priority = type(properties) == 'table' and tonumber(properties.priority) or 0
  local step = priority >= 9 and 9 or priority >= 6 and 6 or priority >= 3 and 3 or 0
  return step == 0 and queue or queue .. <SEPARATOR> .. step
end

local entry = redis.call('HGET', unacked, tag)
if not entry then return {'gone'} end
if finished[redis.call('HGET', record, 'status')] or (tonumber(redis.call('HGET', join, 'round')) or 0) >= tonumber(round)
then
  redis.call('HDEL', unacked, tag)
  return {'over'}
end
if is_cancelled() then return {'cancelled'} end
local new = 0
for i = first, #ARGV, 5 do new = new + 1 - redis.call('HEXISTS', tree, ARGV[i]) end
local size = 1 + redis.call('HLEN', tree)
if size + new > most then return {'full', size} end

local message, queue = string.match(entry, '^%[(.*),"",("[^"]*")%]$')
queue = cjson.decode(queue)
local marked = string.gsub(message, '"headers"%s*:%s*{', '%0"JOINED_HEADER": true, "redelivered": true, ', 1)
redis.call('DEL', join)
redis.call('HSET', join, 'round', round, 'state', ARGV[9], 'started_at', ARGV[10], 'ids', ARGV[13],
           'message', marked, 'list', list_of(queue, message))
local pending = 0
for i = first, #ARGV, 5 do
  local child, outcome = ARGV[i], ''
  local its = <JOB_KEY> .. child
  local status = redis.call('HGET', its, 'status')
  if finished[status] then
    outcome = outcome_of(child)
  else
    pending = pending + 1
    if not status then
      redis.call('HSET', its, 'status', 'queued', 'cluster_id', ARGV[11], 'group_name', ARGV[i + 1],
                 'parent_id', parent, 'root_id', root)
      redis.call('EXPIRE', its, ttl)
      redis.call('LPUSH', ARGV[i + 2], ARGV[i + 3])
      redis.call('XADD', stream, 'MAXLEN', '~', limit, '*', 'job', ARGV[i + 4])
    end
  end
  redis.call('HSET', tree, child, parent)
  redis.call('HSET', join, 'c:' .. child, outcome)
end
redis.call('HSET', join, 'pending', pending)
redis.call('HSET', record, 'status', 'running', 'round', round, 'waiting_for', pending,
           'cluster_id', ARGV[11], 'group_name', ARGV[12])
for _, key in ipairs({record, join, tree}) do redis.call('EXPIRE', key, join_ttl) end
redis.call('HDEL', unacked, tag)
if pending == 0 then go_on(parent) end
return {'waits', pending}
""".replace("JOINED_HEADER", names.JOINED_HEADER)
)

# KEYS: the stream of what was finished. ARGV: now, ttl, the stream's limit, error, then jobs. Ends those that wait for
# others as cancelled: nobody holds their messages. Returns them.
CANCEL_WAITING = _named(
    JOINED
    + """
local ended = {}
for i = 5, #ARGV do
  local job, record = ARGV[i], <JOB_KEY> .. ARGV[i]
  local kept = redis.pcall('HGET', <JOIN_KEY> .. job, 'message')
  if type(kept) == 'string' then
    local parent = redis.call('HGET', record, 'parent_id')
    redis.call('HSET', record, 'status', 'cancelled', 'finished_at', ARGV[1], 'error', ARGV[4])
    redis.call('HDEL', record, 'waiting_for')
    redis.call('EXPIRE', record, ARGV[2])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'id', job)
    if parent then joined(parent, job) end
    left(job, ARGV[2])
    ended[#ended + 1] = job
  end
end
return ended
"""
)
