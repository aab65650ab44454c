#!lua flags=allow-oom
-- Tell a living replica to serve or to drain; it reads the order with its next commit.
-- KEYS: 1 lease   ARGV: 1 "serve" | "drain"
-- Returns 1 if told, 0 if its lease has run out.
-- Atomic because: a lease must not come back to life by being written to.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
return 1
