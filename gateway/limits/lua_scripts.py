"""The scripts of the shared store: each decision is one script and one round trip, by the store's own clock.

A bucket is the text `at:debt`: nanoseconds of debt at a time of the store, in microseconds since 1970. It is the TAT of
gateway/limits/gcra.py, split in two, because Lua's numbers are doubles and can't hold nanoseconds since 1970. A full
bucket has no key. A concurrency limit is a sorted set of leases by the time at which they end.
"""

from __future__ import annotations

from typing import Final

from gateway.limits.plan import UNLIMITED

CLOCK: Final = "redis.call('TIME')"

_COMMON: Final = f"""
local clock = {CLOCK}
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local function read(key)
  local state = redis.call('GET', key)
  if not state then return now, 0 end
  local since, owed = string.match(state, '^(%d+):(%d+)$')
  since, owed = tonumber(since), tonumber(owed)
  local at = math.max(now, since)
  return at, math.max(0, owed - (at - since) * 1000)
end

local function keep(key, at, debt)
  if debt <= 0 then redis.call('DEL', key) return end
  redis.call('SET', key, string.format('%.0f:%.0f', at, debt), 'PX', math.ceil(debt / 1000000) + 1)
end
"""

TAKE: Final = (
    _COMMON
    + f"""
-- KEYS: buckets of requests, buckets of tokens, sets of slots. ARGV: number of the first, number of the second, least,
-- cost, lease, its milliseconds, the lease that the call already holds, how many of the first and of the second are the
-- caller's own; interval and burst of each bucket; the maximum of each set of slots.
-- Returns 1, granted tokens, and the caller's own requests and tokens that are left; or 0, the number of the key that
-- refuses, and the wait, which means nothing for slots.
local requests = tonumber(ARGV[1])
local buckets = requests + tonumber(ARGV[2])
local least, cost, lease, length = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local before, own = ARGV[7], {{tonumber(ARGV[8]), requests + tonumber(ARGV[9])}}
local left, owned, states, wait, by = {{{UNLIMITED}, {UNLIMITED}}}, {{{UNLIMITED}, {UNLIMITED}}}, {{}}, 0, 0

for i = 1, buckets do
  local interval, burst = tonumber(ARGV[8 + 2 * i]), tonumber(ARGV[9 + 2 * i])
  local kind, need = 1, 1
  if i > requests then kind, need = 2, least end
  local at, debt = read(KEYS[i])
  local room = interval * burst - debt
  left[kind] = math.min(left[kind], math.max(0, math.floor(room / interval)))
  if i <= own[kind] then owned[kind] = left[kind] end
  if need > 0 and need * interval - room > wait then wait, by = need * interval - room, i end
  states[i] = {{at, debt, interval}}
end
for i = buckets + 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local taken = redis.call('ZCARD', KEYS[i])
  if before ~= '' and redis.call('ZSCORE', KEYS[i], before) then taken = taken - 1 end
  if by <= buckets and taken >= tonumber(ARGV[9 + buckets + i]) then by = i end
end
if by > 0 then return {{0, by, wait}} end

local granted = math.min(cost, left[2])
for i = 1, buckets do
  local at, debt, interval = unpack(states[i])
  local units = 1
  if i > requests then units = granted end
  if units > 0 then keep(KEYS[i], at, debt + units * interval) end
end
for i = buckets + 1, #KEYS do
  if before ~= '' then redis.call('ZREM', KEYS[i], before) end
  redis.call('ZADD', KEYS[i], now + length * 1000, lease)
  redis.call('PEXPIRE', KEYS[i], 2 * length)
end
return {{1, granted, owned[1] - 1, owned[2] - granted}}
"""
)

SETTLE: Final = (
    _COMMON
    + """
-- KEYS: of each grant its buckets of tokens and its sets of slots. ARGV: of each grant its lease, unused tokens, number
-- of buckets, number of sets, and the interval of each bucket. A lease that is gone was settled, or has expired.
local key, argument = 1, 1
while argument <= #ARGV do
  local lease, unused = ARGV[argument], tonumber(ARGV[argument + 1])
  local buckets, slots = tonumber(ARGV[argument + 2]), tonumber(ARGV[argument + 3])
  argument = argument + 4
  local held = 0
  for i = 0, slots - 1 do
    held = math.max(held, redis.call('ZREM', KEYS[key + buckets + i], lease))
  end
  if unused ~= 0 and held == 1 then
    for i = 0, buckets - 1 do
      local at, debt = read(KEYS[key + i])
      keep(KEYS[key + i], at, debt - unused * tonumber(ARGV[argument + i]))
    end
  end
  key, argument = key + buckets + slots, argument + buckets
end
"""
)

RENEW: Final = (
    _COMMON
    + """
-- KEYS: sets of slots. ARGV: a lease's milliseconds; for each key the lease to renew.
local length = tonumber(ARGV[1])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], now + length * 1000, ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], 2 * length)
end
"""
)
