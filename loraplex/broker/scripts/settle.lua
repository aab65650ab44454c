#!lua flags=allow-oom
-- Charge what answers took instead of what was reserved for them. Each reservation is settled once.
-- KEYS: 1 held, 2 reserved
-- ARGV: 1 prefix of all keys of the tenant, then for each answer: id, tokens that it took
--       ('' = it was never run: its request doesn't count either)
-- Returns how many there were to settle.
-- Atomic because: an API process and the scaler may settle the same one at once.
local settled = 0
for i = 2, #ARGV, 2 do
  local reservation = redis.call('HGET', KEYS[2], ARGV[i])
  if reservation then
    settled = settled + 1
    for _, each in ipairs(cjson.decode(reservation)) do
      local name, tokens, charged, a_token, a_request, day = unpack(each)
      local key = ARGV[1] .. 'scope:' .. name
      local known = redis.call('HMGET', key, 'req', 'tok', 'day', 'used')
      local took = tonumber(ARGV[i + 1]) or 0
      if known[1] then
        redis.call('HINCRBY', key, 'running', -1)
        local full_at = tonumber(known[2]) + (took - charged) * a_token
        redis.call('HSET', key, 'tok', string.format('%.0f', full_at))
        if tonumber(known[3]) == day then
          redis.call('HSET', key, 'used', string.format('%.0f', tonumber(known[4]) + took - tokens))
        end
        if ARGV[i + 1] == '' then
          redis.call('HSET', key, 'req', string.format('%.0f', tonumber(known[1]) - a_request))
        end
      end
    end
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return settled
