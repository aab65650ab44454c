#!lua flags=allow-oom
-- Shut a lane to new requests, or open it again.
-- KEYS: 1 gate   ARGV: 1 "shut" | "open", 2 reason that the senders read
-- Returns 1. Atomic because: only a shut gate is opened; one that is closed for zero (close_idle.lua)
-- is opened by the next request.
if ARGV[1] == 'open' and redis.call('HGET', KEYS[1], 'state') ~= 'shut' then return 1 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'reason', ARGV[2])
return 1
