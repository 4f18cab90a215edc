"""The Lua that counts and sorts messages where they lie. ``backlog`` calls it and tells what it means.

A text is sent whole each time: Redis knows a script by its hash, and the hash of these takes microseconds.
"""

from __future__ import annotations

from brain_clusters.broker import names

# at(text): the time that an ISO 8601 text means, in seconds since the epoch, or nil when it is none; without an offset
# it is UTC. Days from a date: the algorithm of Howard Hinnant's days_from_civil. Microseconds, as Python's.
TIMES = """
local month_days = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

local function days(y, m, d)
  if m <= 2 then y = y - 1 end
  local of_year = math.floor((153 * ((m + 9) % 12) + 2) / 5) + d - 1
  return 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) + of_year - 719468
end

local function offset_of(zone)
  if zone == '' or zone == 'Z' then return 0 end
  local sign, hours, minutes = string.match(zone, '^([+-])(%d%d):?(%d%d)$')
  if not sign or hours > '23' or minutes > '59' then return nil end
  return (sign == '-' and -60 or 60) * (hours * 60 + minutes)
end

local function at(text)
  local y, m, d, h, mi, s, rest = string.match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d):(%d%d)(.*)$')
  if not y then return nil end
  local fraction, zone = string.match(rest, '^%.(%d+)(.*)$')
  local offset = offset_of(zone or rest)
  y, m, d = tonumber(y), tonumber(m), tonumber(d)
  local leap = y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0)
  local last = m == 2 and leap and 29 or month_days[m]
  if not offset or y < 1 or not last or d < 1 or d > last or h > '23' or mi > '59' or s > '59' then return nil end
  local micros = fraction and tonumber(string.sub(fraction .. '00000', 1, 6)) or 0
  return days(y, m, d) * 86400 + h * 3600 + mi * 60 + s - offset + micros / 1e6
end
"""

# size: how much a key holds. One of another type, which users' code can make, holds no message; failing for it would
# tell nothing of all other keys.
_SIZE = """
local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == 'number' and found or 0
end
"""

# field: what follows a key, wherever a pattern first fits. The search for the key is plain, which even in a message
# of a megabyte is quick. Keys cannot be imitated: the body is base64, and in argsrepr every quote is escaped.
# eta_of: a message's own time, or nil. Only what seems to have one is parsed, so that a header inside of another is
# never taken for it.
# waits_since: since when a message waits: publication or, if later, its own time. nil when nobody knows: the sender
# does not stamp; or it was given to an agent that died, and to wait anew is not to have waited all the time.
_MESSAGES = """
local function field(message, key, pattern)
  local from = 1
  while true do
    local _, last = string.find(message, key, from, true)
    if not last then return nil end
    local found = string.match(message, '^%s*:%s*' .. pattern, last + 1)
    if found then return found end
    from = last + 1
  end
end

local function eta_of(message)
  if not field(message, '"eta"', '"') then return nil end
  local sound, found = pcall(cjson.decode, message)
  local headers = sound and type(found) == 'table' and found.headers
  local eta = type(headers) == 'table' and headers.eta
  return type(eta) == 'string' and at(eta) or nil
end

local function stamp_of(message)
  local stamp = tonumber(field(message, '"HEADER"', '([0-9.eE+-]+)') or '')
  return stamp and stamp >= 0 and stamp < 1e11 and stamp or nil
end

local function waits_since(message)
  local stamp = stamp_of(message)
  return stamp and math.max(stamp, eta_of(message) or 0)
end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function exact(number) return number and string.format('%.17g', number) end
SIZE
""".replace("HEADER", names.PUBLISHED_HEADER).replace("SIZE", _SIZE)

# sift: moves what is not due yet from a list into the sorted set, and returns how many remain. New messages come at
# the head and go at the tail, so those not looked at yet are the ones before the marker; without it, all. The oldest
# first, a thousand a call, and a few megabytes a script: Redis does nothing else meanwhile. A moved message is
# overwritten before it is removed, since a list cannot remove by place. Writing to a full Redis fails and changes
# nothing; then what is not due yet counts as waiting.
_SIFT = """
local room = 8000000

local function sift(list, length, etas)
  local key = 'SIFT_PREFIX' .. list
  local marker = redis.pcall('GET', key)
  local unsifted = length
  if type(marker) == 'string' then
    if marker == redis.call('LINDEX', list, 0) then return length end
    unsifted = redis.call('LPOS', list, marker) or length
  end
  local moved, newest, lowest, place = 0, false, math.max(0, unsifted - 1000), unsifted - 1
  local full = false
  while place >= lowest and room > 0 and not full do
    local first = math.max(lowest, place - 24)
    local page = redis.call('LRANGE', list, first, place)
    for k = #page, 1, -1 do
      if room <= 0 then break end
      local due = eta_of(page[k])
      if due and due > now then
        full = type(redis.pcall('ZADD', etas, exact(due), page[k])) ~= 'number'
        if full then break end
        redis.call('LSET', list, first + k - 1, 'brain:moved')
        moved = moved + 1
      else
        newest = page[k]
      end
      room = room - #page[k] - 200
    end
    place = first - 1
  end
  if moved > 0 then redis.call('LREM', list, lowest * 2 > length and -moved or moved, 'brain:moved') end
  if newest then redis.pcall('SET', key, newest, 'EX', 3600) end
  return length - moved
end
""".replace("SIFT_PREFIX", names.SIFT_PREFIX)

# The ends of a queue's lists, as Lua 5.1 writes control characters.
_SUFFIXES = ", ".join(
    "'" + "".join(char if char.isprintable() else f"\\{ord(char):03d}" for char in name[1:]) + "'"
    for name in names.priority_lists("q")
)

# ARGV: a JSON object: queues, their names; soon, in seconds; of, the same by queue where it is another. Names come as
# one text, since packing tens of thousands of arguments takes Python longer than all the rest. Returns, as JSON,
# which C reads, what ``backlog.QueueDepth`` holds of each queue that is not empty, by its place in ``queues``.
DEPTHS = (
    TIMES
    + _MESSAGES
    + _SIFT
    + """
local asked = cjson.decode(ARGV[1])
local queues, of = asked.queues, asked.of
local suffixes = {SUFFIXES}
local etas = {}
for i = 1, #queues do etas[i] = 'ETA_PREFIX' .. queues[i] end
local parked = redis.call('EXISTS', unpack(etas)) > 0

local function oldest_of(list, length)
  for k = 1, math.min(length, 10) do
    local message = redis.call('LINDEX', list, -k)
    if not field(message, '"redelivered"', '(true)') then return waits_since(message) end
  end
end

local function sooner(one, other) return one and other and math.min(one, other) or one or other end

local function parked_of(queue, eta_set, oldest)
  local all = redis.pcall('ZCARD', eta_set)
  if type(all) ~= 'number' or all == 0 then return 0, 0, false, 0, oldest end
  local due = redis.call('ZCOUNT', eta_set, '-inf', exact(now))
  local held, next_due, soon = all - due, false, 0
  if due > 0 then oldest = sooner(oldest, tonumber(redis.call('ZRANGE', eta_set, 0, 0, 'WITHSCORES')[2])) end
  if held > 0 then
    next_due = redis.call('ZRANGE', eta_set, due, due, 'WITHSCORES')[2]
    soon = redis.call('ZCOUNT', eta_set, '(' .. exact(now), exact(now + (of[queue] or asked.soon)))
  end
  return due, held, next_due, soon, oldest
end

-- Most queues are empty, and one EXISTS tells of four lists.
local function lists_of(queue)
  local lists = {}
  for j = 1, #suffixes do lists[j] = queue .. suffixes[j] end
  return redis.call('EXISTS', unpack(lists)) > 0 and lists or {}
end

local found = {}
for i = 1, #queues do
  local length, oldest, look = 0, nil, parked
  for _, list in ipairs(lists_of(queues[i])) do
    local n = size('LLEN', list)
    if n > 0 then
      local left = sift(list, n, etas[i])
      look = look or left < n
      length = length + left
      oldest = sooner(oldest, oldest_of(list, left))
    end
  end
  local due, held, next_due, soon = 0, 0, false, 0
  if look then due, held, next_due, soon, oldest = parked_of(queues[i], etas[i], oldest) end
  length = length + due
  if length + held > 0 then
    found[#found + 1] = {i - 1, length, exact(oldest) or false, held, next_due, soon}
  end
end
return cjson.encode(found)
""".replace("ETA_PREFIX", names.ETA_PREFIX).replace("SUFFIXES", _SUFFIXES)
)

# ARGV: a JSON list of owners. Returns {as JSON, how many messages each holds that holds any, claimed ones included, by
# its place; the beats, one a line, and nothing where there is none}.
HELD = (
    _SIZE
    + """
local owners = cjson.decode(ARGV[1])
local held, keys = {}, {}
for i = 1, #owners do
  local n = size('HLEN', 'brain:unacked:' .. owners[i]) + size('LLEN', 'brain:claim:' .. owners[i])
  if n > 0 then held[#held + 1] = {i - 1, n} end
  keys[i] = 'brain:beat:' .. owners[i]
end
local beats = redis.call('MGET', unpack(keys))
for i = 1, #keys do beats[i] = beats[i] or '' end
return {cjson.encode(held), table.concat(beats, '\\n')}
"""
)

# KEYS: queues. ARGV: a time, then the suffixes. Returns how many messages are older or bear no stamp, and due.
WAITING_SINCE = (
    TIMES
    + _MESSAGES
    + """
local found = {}
for i = 1, #KEYS do
  local old = redis.pcall('ZCOUNT', 'ETA_PREFIX' .. KEYS[i], '-inf', '(' .. ARGV[1])
  if type(old) ~= 'number' then old = 0 end
  for j = 2, #ARGV do
    local list = KEYS[i] .. ARGV[j]
    local length = size('LLEN', list)
    for k = 1, length do
      local message = redis.call('LINDEX', list, -k)
      local eta = eta_of(message)
      local since = stamp_of(message)
      if not eta and since and since >= tonumber(ARGV[1]) then break end
      if k > 1000 then old = old + length - k + 1 break end
      if not eta or math.max(eta, since or 0) < tonumber(ARGV[1]) then old = old + 1 end
    end
  end
  found[i] = old
end
return found
""".replace("ETA_PREFIX", names.ETA_PREFIX)
)


# KEYS: a queue's sorted set, its lists for the priorities 0-2, 3-5, 6-8 and 9, the markers of those. Moves a thousand
# messages; returns how many. Markers go, too: whoever sorts next looks at all that is there.
UNPARK = """
local found = redis.call('ZRANGE', KEYS[1], 0, 999)
for _, raw in ipairs(found) do
  local sound, message = pcall(cjson.decode, raw)
  local properties = sound and type(message) == 'table' and message.properties
  local priority = type(properties) == 'table' and tonumber(properties.priority) or 0
  redis.call('LPUSH', KEYS[2 + math.max(0, math.min(3, math.floor(priority / 3)))], raw)
  redis.call('ZREM', KEYS[1], raw)
end
redis.call('DEL', KEYS[6], KEYS[7], KEYS[8], KEYS[9])
return #found
"""
