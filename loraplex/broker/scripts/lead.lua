#!lua flags=allow-oom
-- Take or renew the scaler's leadership.
-- KEYS: 1 leader   ARGV: 1 my id, 2 lease ms
-- Returns 1 if I lead, else 0. Atomic because: only the holder may renew.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
