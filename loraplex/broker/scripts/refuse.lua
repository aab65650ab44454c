#!lua flags=allow-oom
-- A job that this release can't read goes back to the lane, for a replica of another release.
-- KEYS: 1 jobs, 2 my lease, 3 batches   ARGV: 1 who can't read it (never has a lease), 2 stream id
-- Returns 1, or 0 when the lease was lost.
-- Atomic because: the job must have an owner that others may take it from at once.
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local entry = redis.call('XPENDING', KEYS[1], 'replicas', ARGV[2], ARGV[2], 1)[1]
if entry then
  redis.call('XCLAIM', KEYS[1], 'replicas', ARGV[1], 0, ARGV[2], 'RETRYCOUNT', entry[4])
  redis.call('HSET', KEYS[3], ARGV[1], '-')
end
return 1
