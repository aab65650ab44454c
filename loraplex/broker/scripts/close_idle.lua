#!lua flags=allow-oom
-- Close the gate for scaling to zero. The next enqueue opens it again and wakes the scaler.
-- KEYS: 1 jobs, 2 gate   ARGV: 1 epoch of the scaler
-- Returns 1 if closed, 0 if a job is waiting or running (keep the replicas), -1: a later scaler leads.
-- Atomic because: "nothing to do" and "closed" must be the same instant, or a wake-up is lost.
if tonumber(redis.call('HGET', KEYS[2], 'epoch') or 0) > tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1])
if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
if redis.call('HGET', KEYS[2], 'state') ~= 'shut' then
  redis.call('HSET', KEYS[2], 'state', 'idle')
end
return 1
