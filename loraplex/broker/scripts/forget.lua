#!lua flags=allow-oom
-- Remove what a lane leaves behind that nobody uses any more, an hour from the first call.
-- KEYS: 1 gate, then its other keys   ARGV: 1 epoch of the scaler, 2 seconds
-- Returns 1, or -1: a later scaler leads. Atomic because: that one may have taken it into use again.
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[1]) then return -1 end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[2], 'NX') end
return 1
