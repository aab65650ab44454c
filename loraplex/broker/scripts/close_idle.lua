#!lua flags=allow-oom
-- Close the gate for scaling to zero. The next enqueue opens it again and wakes the scaler.
-- KEYS: 1 jobs, 2 gate   ARGV: none
-- Returns 1 if closed, 0 if a job is waiting or running (keep the replicas).
-- Atomic because: "nothing to do" and "closed" must be the same instant, or a wake-up is lost.
if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
if redis.call('HGET', KEYS[2], 'state') ~= 'shut' then
  redis.call('HSET', KEYS[2], 'state', 'idle')
end
return 1
