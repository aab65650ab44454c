#!lua flags=allow-oom
-- A replica's incarnation comes to its lane: lease, consumer group, first report.
-- KEYS: 1 jobs, 2 lease, 3 reports   ARGV: 1 lease ms, 2 incarnation, 3 report, 4 wake channel, 5 lane
-- Returns 1. Atomic because: a report without a lease reads as a dead replica.
redis.pcall('XGROUP', 'CREATE', KEYS[1], 'replicas', '0', 'MKSTREAM')
redis.call('SET', KEYS[2], 'serve', 'PX', ARGV[1])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('PERSIST', KEYS[1])  -- a lane that was forgotten may be used again
redis.call('PERSIST', KEYS[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
