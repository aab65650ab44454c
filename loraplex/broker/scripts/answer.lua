#!lua flags=allow-oom
-- Answer a job that nobody runs (its deployment was stopped or can't start) and remove it.
-- KEYS: 1 jobs, 2 journal, 3 deaths, 4 gate, 5 usage
-- ARGV: 1 stream id, 2 lease prefix, 3 step message (its last 26 bytes are for its id in
--       the journal), 4 channel, 5 epoch of the scaler, 6 the error's code
-- Returns 1 if answered, 0 if a living replica has it or it is gone, -1: a later scaler leads.
-- Atomic because: a replica could take the job between the look and the answer.
if tonumber(redis.call('HGET', KEYS[4], 'epoch') or 0) > tonumber(ARGV[5]) then return -1 end
local owner = redis.pcall('XPENDING', KEYS[1], 'replicas', ARGV[1], ARGV[1], 1)
if not owner.err and #owner > 0 then
  if redis.call('EXISTS', ARGV[2] .. owner[1][2]) == 1 then return 0 end
  redis.call('XACK', KEYS[1], 'replicas', ARGV[1])
end
local job = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not job then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[5], '*', 'e', ARGV[1], 'j', job[2][2], 'status', 'error', 'error', ARGV[6])
redis.call('HDEL', KEYS[3], ARGV[1])
local entry = string.format('%-26s', redis.call('XADD', KEYS[2], '*', 's', ARGV[3]))
redis.call('PUBLISH', ARGV[4], string.sub(ARGV[3], 1, -27) .. entry)
return 1
