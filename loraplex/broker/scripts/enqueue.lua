-- Put a request's jobs on their lane, if the gate and the backlog bound allow it.
-- KEYS: 1 jobs, 2 gate, 3 the request's record
-- ARGV: 1 most jobs that may wait, 2 wake channel, 3 lane name, 4 how the request is shown,
--       5 seconds that the record is kept, 6 who waits (API process/nonce), 7 API process,
--       then pairs of (request, job)
-- Returns {"OK", stream id, …} | {"FULL", jobs waiting} | {"SHUT", reason} | {"KNOWN"}: it is here
-- already (an idempotent request, sent again)
-- Atomic because: the gate and the bound must hold at the instant of XADD, and the scaler closes
-- the gate for zero (close_idle.lua) only on an empty lane: so no wake-up is lost.
if redis.call('EXISTS', KEYS[3]) == 1 then return {'KNOWN'} end
if redis.call('HGET', KEYS[2], 'state') == 'shut' then
  return {'SHUT', redis.call('HGET', KEYS[2], 'reason') or ''}
end
local pending = redis.pcall('XPENDING', KEYS[1], 'replicas')  -- an error: no group yet
local waiting = redis.call('XLEN', KEYS[1]) - (pending.err and 0 or pending[1])
if waiting >= tonumber(ARGV[1]) then
  return {'FULL', tostring(waiting)}
end
local reply = {'OK'}
for i = 8, #ARGV, 2 do
  reply[#reply + 1] = redis.call('XADD', KEYS[1], '*', 'j', ARGV[i + 1], 'r', ARGV[i], 'to', ARGV[7])
end
redis.call('HSET', KEYS[3], 'shown', ARGV[4], 'entries', table.concat(reply, ' ', 2),
           'w:' .. ARGV[6], '1')
redis.call('EXPIRE', KEYS[3], ARGV[5])
redis.call('HSET', KEYS[2], 'state', 'open')
redis.call('PUBLISH', ARGV[2], ARGV[3])
return reply
