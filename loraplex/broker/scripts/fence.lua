#!lua flags=allow-oom
-- Make a lane refuse what leaders of earlier epochs do late.
-- KEYS: 1 gate   ARGV: 1 epoch
-- Returns 1, or -1: a later leader was here. Atomic because: the epoch must only rise.
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return 1
