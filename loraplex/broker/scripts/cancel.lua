-- Stop a request wherever it is: waiting (removed) or running (its replica is told).
-- KEYS: 1 jobs   ARGV: 1 stream id, 2 control prefix, 3 cancel message
-- Returns "QUEUED" (removed, never ran) | "RUNNING" (told) | "GONE" (ended already)
-- Atomic because: between the look and the removal a replica could take the job.
local owner = redis.pcall('XPENDING', KEYS[1], 'replicas', ARGV[1], ARGV[1], 1)
if not owner.err and #owner > 0 then
  local control = ARGV[2] .. owner[1][2]
  redis.call('RPUSH', control, ARGV[3])
  redis.call('EXPIRE', control, 600)
  return 'RUNNING'
end
return redis.call('XDEL', KEYS[1], ARGV[1]) == 1 and 'QUEUED' or 'GONE'
