#!lua flags=allow-oom
-- Take or renew the scaler's leadership.
-- KEYS: 1 leader, 2 epoch   ARGV: 1 my id, 2 lease ms, 3 the latest epoch that is known elsewhere
-- Returns my epoch if I lead, else 0.
-- Atomic because: only the holder may renew, and no two leaders may have the same epoch.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
local epoch = tonumber(redis.call('GET', KEYS[2]) or 0)
if not holder then
  epoch = math.max(epoch, tonumber(ARGV[3])) + 1
  redis.call('SET', KEYS[2], string.format('%.0f', epoch))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return epoch
