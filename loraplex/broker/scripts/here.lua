#!lua flags=allow-oom
-- An API process is alive. What its clients wait for is given up when it no longer says so.
-- KEYS: 1 API processes   ARGV: 1 API process
-- Returns 1. Atomic because: the time must be Redis' own, as those who judge by it have it.
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), ARGV[1])
return 1
