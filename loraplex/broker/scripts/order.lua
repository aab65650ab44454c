#!lua flags=allow-oom
-- Tell a living replica to serve or to drain; it reads the order with its next commit.
-- KEYS: 1 lease, 2 gate   ARGV: 1 "serve" | "drain", 2 epoch of the scaler
-- Returns 1 if told, 0 if its lease has run out, -1: a later scaler leads.
-- Atomic because: a lease must not come back to life by being written to.
if tonumber(redis.call('HGET', KEYS[2], 'epoch') or 0) > tonumber(ARGV[2]) then return -1 end
redis.call('HSET', KEYS[2], 'epoch', ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
return 1
