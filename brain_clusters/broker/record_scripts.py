"""The Lua that moves a job's record along: begun with its delivery, finished or put off with its acknowledgement.

A command in here costs about a microsecond, a round trip a hundred: so each step of a job is one script.
"""

from __future__ import annotations

from brain_clusters.broker import names
from brain_clusters.broker.joining import JOINED, named
from brain_clusters.domain.states import FINISHED_JOB_STATUSES

FINISHED = "local finished = {" + ", ".join(f"['{status}'] = true" for status in FINISHED_JOB_STATUSES) + "}\n"

# begun: counts a delivery of a job. Returns the attempt's number, or 0 when the job is finished already; how many
# attempts before it ended with the death of their agent; and whether the job is to be cancelled. Users' code can put
# anything at the key of a record: what is no hash is no record, and must not stop the queue.
# A job that goes on after those that it handed down is in the same attempt; one that waits for them is not begun.
BEGUN = named(
    FINISHED
    + """
local function begun(id, owner, now, ttl)
  local record = <JOB_KEY> .. id
  local was = redis.pcall('HMGET', record, 'status', 'attempts', 'deaths', 'waiting_for')
  if was.err then
    redis.call('DEL', record)
    was = {}
  end
  if finished[was[1]] then return 0, 0, 0 end
  local waits = tonumber(was[4] or '')
  if waits and waits > 0 and redis.call('EXISTS', <JOIN_KEY> .. id) == 1 then return 0, 0, 0 end
  local attempt, deaths = tonumber(was[2]) or 0, tonumber(was[3]) or 0
  if waits then
    redis.call('HDEL', record, 'waiting_for')
  else
    attempt = attempt + 1
    if was[1] == 'running' then deaths = deaths + 1 end
  end
  redis.call('HSET', record, 'status', 'running', 'agent_id', owner, 'started_at', now,
             'attempts', attempt, 'deaths', deaths)
  redis.call('EXPIRE', record, ttl)
  return attempt, deaths, redis.call('EXISTS', <CANCEL_KEY> .. id)
end
"""
)

# ARGV: job, owner, now, ttl.
BEGIN = BEGUN + "return {begun(ARGV[1], ARGV[2], ARGV[3], ARGV[4])}"

# KEYS: record. ARGV: owner. A living agent gave the job back and never began it.
UNBEGIN = """
local was = redis.pcall('HMGET', KEYS[1], 'status', 'agent_id', 'attempts')
if was[1] == 'running' and was[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'status', 'queued', 'attempts', math.max(0, (tonumber(was[3]) or 0) - 1))
end
"""

# KEYS: record, the stream, the owner's unacked hash, what tells that the owner was given up. ARGV: the delivery's tag,
# or ''; ttl; the stream's limit; job; parent, or ''; then the record's fields. The first outcome of a job counts.
# Returns 0, and changes nothing, when the job is not the owner's any more: it was given up, or the message was taken
# from it and another has begun the job. Acknowledged last: a full Redis refuses the first writing command, and with it
# all.
FINISH = (
    FINISHED
    + JOINED
    + """
local function announced()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[4])
end

if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
local was = redis.pcall('HMGET', KEYS[1], 'status', 'round', 'agent_id')
if was.err then
  redis.call('DEL', KEYS[1])
  was = {}
end
local taken = was[1] == 'running' and was[3] and 'UNACKED' .. was[3] ~= KEYS[3]
if taken and redis.pcall('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
if not finished[was[1]] then
  redis.call('HSET', KEYS[1], unpack(ARGV, 6))
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  local done = announced()
  if type(done) == 'table' and string.find(done.err, 'WRONGTYPE') then  -- no stream any more
    redis.call('DEL', KEYS[2])
    announced()
  end
  if ARGV[5] ~= '' then joined(ARGV[5], ARGV[4]) end
  if was[2] then left(ARGV[4], ARGV[2]) end
end
if ARGV[1] ~= '' then redis.pcall('HDEL', KEYS[3], ARGV[1]) end
return 1
""".replace("UNACKED", names.unacked_key(""))
)

# KEYS: record, the owner's unacked hash, the queue's sorted set, what tells that the owner was given up. ARGV: tag,
# ttl, seconds to wait, then the record's fields. Returns whether the message was there to be parked. It is taken out of
# its entry as text, as it stands there. What the attempt used is kept, a line for each, as the next one's outcome takes
# the place of its own.
AGAIN = """
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
local entry = redis.call('HGET', KEYS[2], ARGV[1])
local message = entry and string.match(entry, '^%[(.*),"","[^"]*"%]$')
if not message then return 0 end
local time = redis.call('TIME')
if redis.pcall('HMGET', KEYS[1], 'status').err then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
local earlier, usage = unpack(redis.call('HMGET', KEYS[1], 'earlier_usage', 'usage'))
if usage and usage ~= '' then
  redis.call('HSET', KEYS[1], 'usage', '', 'earlier_usage', (earlier or '') .. usage .. '\\n')
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[3], string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[3]), message)
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""

# ARGV: job ids as JSON, what the keys say, ttl. Returns the jobs' statuses, '' where there is no record.
CANCEL = (
    FINISHED
    + """
local found = {}
for i, id in ipairs(cjson.decode(ARGV[1])) do
  local status = redis.pcall('HGET', 'JOB_PREFIX' .. id, 'status')
  found[i] = type(status) == 'string' and status or ''
  if not finished[found[i]] then redis.call('SET', 'CANCEL_PREFIX' .. id, ARGV[2], 'EX', ARGV[3]) end
end
return found
""".replace("JOB_PREFIX", names.job_key("")).replace("CANCEL_PREFIX", names.cancel_key(""))
)

# ARGV: job ids as JSON. Returns their statuses. One that runs has not met its end yet: it stays as it is.
REVIVE = """
local found = {}
for i, id in ipairs(cjson.decode(ARGV[1])) do
  local status = redis.pcall('HGET', 'JOB_PREFIX' .. id, 'status')
  found[i] = type(status) == 'string' and status or ''
  if found[i] ~= 'running' then redis.call('DEL', 'JOB_PREFIX' .. id, 'CANCEL_PREFIX' .. id) end
end
return found
""".replace("JOB_PREFIX", names.job_key("")).replace("CANCEL_PREFIX", names.cancel_key(""))
