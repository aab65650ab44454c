-- A client comes back for a request: it is kept for as long as it waits.
-- KEYS: 1 the request's record, 2 journal   ARGV: 1 who waits (API process/nonce)
-- Returns {} (unknown, or kept no longer) | {how it is shown, stream ids, latest journal id}
-- Atomic because: a client must not be told of a request that is given up at that instant.
local shown = redis.call('HGET', KEYS[1], 'shown')
if not shown then return {} end
redis.call('HSET', KEYS[1], 'w:' .. ARGV[1], '1')
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {shown, redis.call('HGET', KEYS[1], 'entries'), last and last[1] or '0-0'}
