#!lua flags=allow-oom
-- The one call that ends an engine step: journal, publish, acknowledge, renew the lease.
-- KEYS: 1 lease, 2 journal, 3 jobs, 4 reports, 5 control, 6 batches, 7 deaths, 8 dead letters,
--       9 usage
-- ARGV: 1 lease ms, 2 incarnation, 3 report, 4 journal entry ('' = none), 5 retention ms,
--       6 what the next step runs ('' = all jobs, a stream id = that one alone, '=' as before),
--       7 control messages of the reply before this, which have been obeyed,
--       8 number of dead letters, then for each: stream id, error;
--       then the number of ended jobs, for each: stream id, its usage ('' = none);
--       then pairs of (channel, message);
--       a message is a step whose last 26 bytes are for its id in the journal, '' the journal entry
-- Returns {"FENCED"}: the lease was lost and nothing was written
--       | {"OK", "serve" | "drain", jobs waiting, control message, …}
-- Atomic because: a token is published if and only if it is journalled by a living owner, and a job
-- is removed if and only if its last token was; and then, once, what it took is recorded.
local order = redis.call('GET', KEYS[1])
if not order then return {'FENCED'} end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local entry = ''
if ARGV[4] ~= '' then
  -- Kept: what an unfinished job may have, and what ended within the retention.
  local now = redis.call('TIME')
  local oldest = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[5]))
  local job = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  if job then oldest = math.min(oldest, tonumber(string.match(job[1], '^%d+'))) end
  entry = redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', oldest), '*', 's', ARGV[4])
end
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[6], ARGV[2])
elseif ARGV[6] ~= '=' then
  redis.call('HSET', KEYS[6], ARGV[2], ARGV[6])
end
local at = 9 + 2 * tonumber(ARGV[8])
for i = 9, at - 1, 2 do
  local job = redis.call('XRANGE', KEYS[3], ARGV[i], ARGV[i])[1]
  if job then
    redis.call('XADD', KEYS[8], 'MAXLEN', '~', 1000, '*', 'j', job[2][2], 'error', ARGV[i + 1])
  end
end
local ended = tonumber(ARGV[at])
for i = at + 1, at + 2 * ended, 2 do
  redis.call('XACK', KEYS[3], 'replicas', ARGV[i])
  if redis.call('XDEL', KEYS[3], ARGV[i]) == 1 and ARGV[i + 1] ~= '' then
    redis.call('XADD', KEYS[9], '*', 'e', ARGV[i], 'u', ARGV[i + 1])
  end
  redis.call('HDEL', KEYS[7], ARGV[i])
end
entry = string.format('%-26s', entry)
for i = at + 2 * ended + 1, #ARGV, 2 do
  local message = ARGV[i + 1] == '' and ARGV[4] or ARGV[i + 1]
  redis.call('PUBLISH', ARGV[i], string.sub(message, 1, -27) .. entry)
end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
local waiting = redis.call('XLEN', KEYS[3]) - redis.call('XPENDING', KEYS[3], 'replicas')[1]
redis.call('LTRIM', KEYS[5], ARGV[7], -1)  -- not sooner: a reply can be lost
local reply = {'OK', order, tostring(waiting)}
for _, message in ipairs(redis.call('LRANGE', KEYS[5], 0, -1)) do
  reply[#reply + 1] = message
end
return reply
