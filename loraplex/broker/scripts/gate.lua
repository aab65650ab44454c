#!lua flags=allow-oom
-- Shut a lane to new requests, or open it again.
-- KEYS: 1 gate, then the lane's other keys (of the scaler)   ARGV: 1 "shut" | "open", 2 reason that the senders read,
--                      3 epoch of the scaler ('' = an API process, on a user's word)
-- Returns 1, or -1: a later scaler leads. Atomic because: only a shut gate is opened; one that is
-- closed for zero (close_idle.lua) is opened by the next request.
if ARGV[3] ~= '' then
  if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[3]) then return -1 end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
end
if ARGV[1] == 'open' and redis.call('HGET', KEYS[1], 'state') ~= 'shut' then return 1 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'reason', ARGV[2])
if ARGV[1] == 'open' then  -- it may have been forgotten
  for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
end
return 1
