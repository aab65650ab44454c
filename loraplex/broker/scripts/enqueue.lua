-- Put a job on its lane, if the gate and the backlog bound allow it.
-- KEYS: 1 jobs, 2 gate   ARGV: 1 job, 2 most jobs that may wait, 3 wake channel, 4 lane name
-- Returns {"OK", stream id, jobs waiting before it} | {"FULL", jobs waiting} | {"SHUT", reason}
-- Atomic because: the gate and the bound must hold at the instant of XADD, and the scaler closes
-- the gate for zero (close_idle.lua) only on an empty lane: so no wake-up is lost.
if redis.call('HGET', KEYS[2], 'state') == 'shut' then
  return {'SHUT', redis.call('HGET', KEYS[2], 'reason') or ''}
end
local pending = redis.pcall('XPENDING', KEYS[1], 'replicas')  -- an error: no group yet
local waiting = redis.call('XLEN', KEYS[1]) - (pending.err and 0 or pending[1])
if waiting >= tonumber(ARGV[2]) then
  return {'FULL', tostring(waiting)}
end
local id = redis.call('XADD', KEYS[1], '*', 'j', ARGV[1])
redis.call('HSET', KEYS[2], 'state', 'open')
redis.call('PUBLISH', ARGV[3], ARGV[4])
return {'OK', id, tostring(waiting)}
