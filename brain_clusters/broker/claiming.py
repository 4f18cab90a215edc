"""The Lua that takes the next message: out of its queue, into the hash of its owner, and its job begun, in one step.

A message is entered before it leaves the place where it was: a full Redis refuses to enter it, and then it stays there.
"""

from __future__ import annotations

from brain_clusters.broker import names
from brain_clusters.broker.record_scripts import BEGUN
from brain_clusters.broker.scripts import TIMES

# KEYS: the owner's claim list, its unacked hash; then by queue: the lists of high priority, the sorted sets of what
# waits for its time, kombu's lists by priority. ARGV: owner, now by its clock, ttl of records, the queue that what lies
# in the claim list came from, then the queues.
#
# Returns one of
#   {message, queue, tag, settled, attempt, deaths, cancelled}, see ``transport.Claimed``;
#   {message} for one that nobody can read; it lies in the claim list;
#   in how many seconds the next message is due, or false, when nothing is there.
# An owner that was given up is told that nothing is there, and what lies in its claim list goes back.
#
# enter: the entry is kombu's, [message, exchange, routing key], and names the list that the message came from. The
# message goes in as the text that it came as: what cjson reads and writes again is another. Parked is what is not due
# yet; a set that refuses it leaves it to Celery, which then holds it, and begins it later.
CLAIM = (
    TIMES
    + BEGUN
    + """
local claim, unacked = KEYS[1], KEYS[2]
local owner, now, ttl = ARGV[1], ARGV[2], ARGV[3]
local queues = #ARGV - 4

local function redis_time()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function read(raw)
  local sound, message = pcall(cjson.decode, raw)
  if not sound or type(message) ~= 'table' or message.body == nil then return nil end
  local properties, headers = message.properties, message.headers
  local info = type(properties) == 'table' and properties.delivery_info
  if type(info) ~= 'table' or type(headers) ~= 'table' then return nil end
  if type(info.exchange) ~= 'string' or type(info.routing_key) ~= 'string' then return nil end
  if type(properties.delivery_tag) ~= 'string' then return nil end
  return headers, properties.delivery_tag, info.routing_key
end

local function park(raw, queue, eta)
  local due = at(eta)
  if not due then return false, false end
  if due <= redis_time() then return false, true end
  local done = redis.pcall('ZADD', 'ETA_PREFIX' .. queue, string.format('%.17g', due), raw)
  return type(done) == 'number', false
end

local function enter(raw, queue, due)
  local headers, tag, key = read(raw)
  if not headers then return nil end
  local parked, settled = false, true
  if not due and type(headers.eta) == 'string' then parked, settled = park(raw, queue, headers.eta) end
  if parked then return 'parked' end
  local list = key == queue .. 'HIGH' and key or queue
  redis.call('HSET', unacked, tag, '[' .. raw .. ',"",' .. cjson.encode(list) .. ']')
  local attempt, deaths, cancelled = -1, 0, 0
  if settled and headers.task == 'JOB_TASK' and type(headers.id) == 'string' then
    attempt, deaths, cancelled = begun(string.gsub(headers.id, '%z', '\\239\\191\\189'), owner, now, ttl)
  end
  return {raw, queue, tag, settled and 1 or 0, attempt, deaths, cancelled}
end

local function take_claimed()
  local raw = redis.call('LINDEX', claim, -1)
  if not raw then return end
  local found = enter(raw, ARGV[4] ~= '' and ARGV[4] or ARGV[5])
  if not found then return {raw} end
  redis.call('RPOP', claim)
  return found
end

local function take_listed(list, queue)
  local raw = redis.call('LINDEX', list, -1)
  if not raw then return end
  local found = enter(raw, queue)
  if not found then
    redis.call('LMOVE', list, claim, 'RIGHT', 'LEFT')
    return {raw}
  end
  redis.call('RPOP', list)
  return found
end

local next_in
local function take_due(set, queue)
  local first = redis.pcall('ZRANGE', set, 0, 0, 'WITHSCORES')
  if not first[2] then return end
  local due_in = first[2] - redis_time()
  if due_in > 0 then
    next_in = math.min(next_in or due_in, due_in)
    return
  end
  local found = enter(first[1], queue, true)
  if not found then
    redis.call('LPUSH', claim, first[1])
    found = {first[1]}
  end
  redis.call('ZREM', set, first[1])
  return found
end

local function take(from, to, how)
  for i = from, to do
    local found = how(KEYS[i], ARGV[5 + (i - 3) % queues])
    if found then return found end
  end
end

-- Most of the time nothing lies but in kombu's lists, and one EXISTS tells.
local function next_message()
  if redis.call('EXISTS', claim, unpack(KEYS, 3, 2 + 2 * queues)) > 0 then
    local found = take_claimed() or take(3, 2 + queues, take_listed) or take(3 + queues, 2 + 2 * queues, take_due)
    if found then return found end
  end
  return take(3 + 2 * queues, #KEYS, take_listed)
end

if redis.call('EXISTS', 'FENCED' .. owner) == 1 then
  while redis.call('LLEN', claim) > 0 do
    redis.call('RPUSH', ARGV[4] ~= '' and ARGV[4] or ARGV[5], redis.call('RPOP', claim))
  end
  return false
end
for _ = 1, 100 do
  local found = next_message()
  if not found then return next_in and string.format('%.6f', next_in) or false end
  if found ~= 'parked' then return found end
end
return '0'
""".replace("ETA_PREFIX", names.ETA_PREFIX)
    .replace("HIGH", "".join(c if c.isprintable() else f"\\{ord(c):03d}" for c in names.high_list("")))
    .replace("JOB_TASK", names.JOB_TASK)
    .replace("FENCED", names.fenced_key(""))
)
