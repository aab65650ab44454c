#!lua flags=allow-oom
-- A client comes back for a request: it is kept for as long as it waits.
-- KEYS: 1 the request's record, 2 journal, 3 jobs   ARGV: 1 who waits (API process/nonce)
-- Returns {} (unknown, or kept no longer)
--       | {how it is shown, stream ids, journal id that it came after, latest journal id,
--          then those stream ids that are here still}
-- Atomic because: a client must not be told of a request that is given up at that instant.
local shown = redis.call('HGET', KEYS[1], 'shown')
if not shown or redis.call('HEXISTS', KEYS[1], 'stopped') == 1 then return {} end
redis.call('HSET', KEYS[1], 'w:' .. ARGV[1], '1')
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local entries = redis.call('HGET', KEYS[1], 'entries')
local after = redis.call('HGET', KEYS[1], 'after') or ''
local reply = {shown, entries, after, last and last[1] or '0-0'}
for id in string.gmatch(entries, '%S+') do
  if redis.call('XRANGE', KEYS[3], id, id)[1] then reply[#reply + 1] = id end
end
return reply
