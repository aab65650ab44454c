#!lua flags=allow-oom
-- A replica says something without owning jobs: that it is loading, has failed or has left.
-- KEYS: 1 reports   ARGV: 1 incarnation, 2 report, 3 wake channel, 4 lane
-- Returns 1. Atomic because: who is woken must find it.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
