-- Put a request's jobs on their lane, if the gate and the backlog bound allow it.
-- KEYS: 1 jobs, 2 gate, 3 the request's record, 4 journal
-- ARGV: 1 most jobs that may wait, 2 wake channel, 3 lane name, 4 how the request is shown,
--       5 seconds that the record is kept, 6 who waits (API process/nonce), 7 API process,
--       then pairs of (request, job)
-- Returns {"OK", latest journal id, jobs that wait before it, stream id, …} | {"FULL", jobs waiting} | {"SHUT", reason} | {"MEMORY"}
--       | {"KNOWN"}: it is here already (an idempotent request, sent again)
--       | {"STOPPING"}: the same, and a replica has not heard yet that it was stopped
-- Atomic because: the gate and the bound must hold at the instant of XADD, and the scaler closes
-- the gate for zero (close_idle.lua) only on an empty lane: so no wake-up is lost.
local before = redis.call('HMGET', KEYS[3], 'entries', 'stopped')
if before[1] then
  if not before[2] then return {'KNOWN'} end
  for id in string.gmatch(before[1], '%S+') do
    if redis.call('XRANGE', KEYS[1], id, id)[1] then return {'STOPPING'} end
  end
end
if redis.call('HGET', KEYS[2], 'state') == 'shut' then
  return {'SHUT', redis.call('HGET', KEYS[2], 'reason') or ''}
end
-- The last tenth is for what was accepted: its tokens, and what starts its replicas.
local memory = redis.call('INFO', 'memory')
local most = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
if most > 0 and tonumber(string.match(memory, '\nused_memory:(%d+)')) > 0.9 * most then
  return {'MEMORY'}
end
local pending = redis.pcall('XPENDING', KEYS[1], 'replicas')  -- an error: no group yet
local waiting = redis.call('XLEN', KEYS[1]) - (pending.err and 0 or pending[1])
if waiting >= tonumber(ARGV[1]) then
  return {'FULL', tostring(waiting)}
end
-- What an earlier request with the same id left in the journal is not of this one.
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
last = last and last[1] or '0-0'
local reply = {'OK', last, tostring(waiting)}
for i = 8, #ARGV, 2 do
  reply[#reply + 1] = redis.call('XADD', KEYS[1], '*', 'j', ARGV[i + 1], 'r', ARGV[i], 'to', ARGV[7],
                                 'after', last)
end
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do
  redis.call('PERSIST', key)  -- a lane that was forgotten may be used again
end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'shown', ARGV[4], 'entries', table.concat(reply, ' ', 4),
           'after', last,
           'w:' .. ARGV[6], '1')
redis.call('EXPIRE', KEYS[3], ARGV[5])
redis.call('HINCRBY', KEYS[2], 'arrived', (#ARGV - 7) / 2)
-- Where replicas are, or were asked for, the scaler's tick is soon enough.
if redis.call('HGET', KEYS[2], 'state') ~= 'open' then
  redis.call('HSET', KEYS[2], 'state', 'open')
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
return reply
