#!lua flags=allow-oom
-- Drop what a journal needs no longer: what ended before the retention.
-- KEYS: 1 jobs, 2 journal   ARGV: 1 retention ms
-- Returns the number of entries dropped. Atomic because: the oldest unfinished job bounds it.
local now = redis.call('TIME')
local oldest = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[1]))
local job = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if job then oldest = math.min(oldest, tonumber(string.match(job[1], '^%d+'))) end
return redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', oldest))
