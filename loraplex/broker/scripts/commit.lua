-- The one call that ends an engine step: journal, publish, acknowledge, renew the lease.
-- KEYS: 1 lease, 2 journal, 3 jobs, 4 reports, 5 control
-- ARGV: 1 lease ms, 2 incarnation, 3 report, 4 journal entry ('' = none), 5 journal age ms,
--       6 number of ended jobs, then their stream ids, then pairs of (channel, message)
-- Returns {"FENCED"}: the lease was lost and nothing was written
--       | {"OK", "serve" | "drain", jobs waiting, control message, …}
-- Atomic because: a token is published if and only if it is journalled by a living owner, and a job
-- is removed if and only if its last token was.
local order = redis.call('GET', KEYS[1])
if not order then return {'FENCED'} end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then
  local now = redis.call('TIME')
  local oldest = math.max(0, now[1] * 1000 - tonumber(ARGV[5]))
  redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', oldest), '*', 's', ARGV[4])
end
local ended = tonumber(ARGV[6])
for i = 7, 6 + ended do
  redis.call('XACK', KEYS[3], 'replicas', ARGV[i])
  redis.call('XDEL', KEYS[3], ARGV[i])
end
for i = 7 + ended, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
local waiting = redis.call('XLEN', KEYS[3]) - redis.call('XPENDING', KEYS[3], 'replicas')[1]
local reply = {'OK', order, tostring(waiting)}
for _, message in ipairs(redis.call('LRANGE', KEYS[5], 0, -1)) do
  reply[#reply + 1] = message
end
redis.call('DEL', KEYS[5])
return reply
