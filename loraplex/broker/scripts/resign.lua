#!lua flags=allow-oom
-- An incarnation ends without having died of its jobs: what it still owns is others', unsuspected.
-- KEYS: 1 jobs, 2 its lease, 3 batches   ARGV: 1 incarnation
-- Returns 1. Atomic because: a mark that is set after its jobs were reclaimed would stay for ever.
redis.call('DEL', KEYS[2])
local left = redis.pcall('XPENDING', KEYS[1], 'replicas', '-', '+', 1, ARGV[1])
if left.err or #left == 0 then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[3], ARGV[1], '-')
end
return 1
