"""The Lua that hands work down, and that ends who waits or waits for what was cancelled. ``joining`` has the rest."""

from __future__ import annotations

from brain_clusters.broker import names
from brain_clusters.broker.joining import JOINED, named
from brain_clusters.broker.record_scripts import FINISHED

# KEYS: the parent's record, its join, its tree, the stream of what was handed down, the owner's unacked hash, what
# tells that the owner was given up. ARGV:
# parent, root, the parent's own parent or ''; tag, round; the most jobs of the tree; ttl of records and of joins; the
# stream's limit; state; started_at; usage; cluster, group; ids; then for each child id, group, list, message, and the
# stream's entry.
#
# Returns one of {'waits', pending}; {'cancelled'}: it or one above it is to be cancelled; {'full', how many}: the tree;
# {'over'}: another delivery of the same job handed the same down already, or ended; {'gone'}: the message is not held
# here any more, and another agent does the job.
#
# Ids are the same in every attempt, so a child that is there already is not handed down again, unless it ended without
# success: then somebody wants its parent to be tried again. The parent's message is kept as the text that it came as,
# with two marks: it goes on, and it has not waited all the time.
HAND_DOWN = named(
    FINISHED
    + JOINED
    + """
local record, join, tree, stream, unacked, fenced = unpack(KEYS)
local parent, root, above, tag, round, most, ttl, join_ttl, limit = unpack(ARGV, 1, 9)
local state, started_at, usage, cluster, group, ids = unpack(ARGV, 10, 15)
local first = 16

local function is_cancelled()
  local job = parent
  for _ = 1, 100 do
    if redis.call('EXISTS', <CANCEL_KEY> .. job) == 1 then return true end
    job = redis.call('HGET', tree, job)
    if not job then break end
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

-- An idle agent waits on its queue's list of normal priority alone, and finds the others half a second later.
local function push(list, message)
  local normal, is_high = list, string.sub(list, -#<HIGH>) == <HIGH>
  if is_high then normal = string.sub(list, 1, -#<HIGH> - 1) end
  redis.call('LPUSH', is_high and redis.call('LLEN', normal) == 0 and normal or list, message)
end

local entry = redis.call('EXISTS', fenced) == 0 and redis.call('HGET', unacked, tag)
if not entry then return {'gone'} end
local reached = tonumber(redis.call('HGET', join, 'round')) or 0
if finished[redis.call('HGET', record, 'status')] or reached >= tonumber(round) then
  redis.call('HDEL', unacked, tag)
  return {'over'}
end
if is_cancelled() then return {'cancelled'} end
local new = 0
for i = first, #ARGV, 5 do new = new + 1 - redis.call('HEXISTS', tree, ARGV[i]) end
local size = 1 + redis.call('HLEN', tree)
if size + new > tonumber(most) then return {'full', size} end

local message, queue = string.match(entry, '^%[(.*),"",("[^"]*")%]$')
queue = cjson.decode(queue)
local marked = string.gsub(message, '"headers"%s*:%s*{', '%0"JOINED_HEADER": true, "redelivered": true, ', 1)
redis.call('DEL', join)
redis.call('HSET', join, 'round', round, 'state', state, 'started_at', started_at, 'usage', usage, 'ids', ids,
           'message', marked, 'list', list_of(queue, message))
local pending = 0
for i = first, #ARGV, 5 do
  local child, outcome = ARGV[i], ''
  local its = <JOB_KEY> .. child
  local status = redis.call('HGET', its, 'status')
  if status == 'succeeded' then
    outcome = outcome_of(child)
  else
    pending = pending + 1
    local was_cancelled = redis.call('DEL', <CANCEL_KEY> .. child) == 1
    if not status or finished[status] then
      redis.call('DEL', its)
      redis.call('HSET', its, 'status', 'queued', 'cluster_id', cluster, 'group_name', ARGV[i + 1],
                 'parent_id', parent, 'root_id', root)
      redis.call('EXPIRE', its, ttl)
      push(ARGV[i + 2], ARGV[i + 3])
    end
    if not status or finished[status] or was_cancelled then
      redis.call('XADD', stream, 'MAXLEN', '~', limit, '*', 'job', ARGV[i + 4])
    end
  end
  redis.call('HSET', tree, child, parent)
  redis.call('HSET', join, 'c:' .. child, outcome)
end
redis.call('HSET', join, 'pending', pending)
redis.call('HSET', record, 'status', 'running', 'round', round, 'waiting_for', pending,
           'cluster_id', cluster, 'group_name', group)
if above ~= '' then redis.call('HSET', record, 'parent_id', above, 'root_id', root) end
for _, key in ipairs({record, join, tree}) do redis.call('EXPIRE', key, join_ttl) end
redis.call('HDEL', unacked, tag)
if pending == 0 then go_on(parent) end
return {'waits', pending}
""".replace("JOINED_HEADER", names.JOINED_HEADER)
)

# KEYS: the stream of what was finished. ARGV: now, ttl, the stream's limit, error, then jobs. Ends those that wait for
# others as cancelled: nobody holds their messages. Returns them.
CANCEL_WAITING = named(
    JOINED
    + """
local ended = {}
for i = 5, #ARGV do
  local job, record = ARGV[i], <JOB_KEY> .. ARGV[i]
  local kept = redis.pcall('HGET', <JOIN_KEY> .. job, 'message')
  if type(kept) == 'string' then
    local parent = redis.call('HGET', record, 'parent_id')
    local did = redis.call('HMGET', <JOIN_KEY> .. job, 'started_at', 'usage')
    redis.call('HSET', record, 'status', 'cancelled', 'finished_at', ARGV[1], 'error', ARGV[4],
               'started_at', did[1] or '', 'usage', did[2] or 'null')
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

# ARGV: error, then jobs. Of those that wait in a queue and are to be cancelled, tells the parents so that these go on.
# Their records stay as they are until an agent meets their messages, since those are still there.
JOIN_CANCELLED = named(
    JOINED
    + """
for i = 2, #ARGV do
  local job = ARGV[i]
  local is = redis.pcall('HMGET', <JOB_KEY> .. job, 'status', 'parent_id')
  if is[1] == 'queued' and is[2] and redis.call('EXISTS', <CANCEL_KEY> .. job) == 1 then
    joined(is[2], job, 'cancelled\\n\\n' .. ARGV[1])
  end
end
"""
)
