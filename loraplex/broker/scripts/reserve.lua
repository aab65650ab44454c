-- Reserve a request's share of its tenant's limits: all of it in all scopes, or nothing.
-- KEYS: 1 held (reservations by deadline, ms), 2 reserved, then a hash for each scope
-- ARGV: 1 prefix of all keys of the tenant, 2 deadline (ms), 3 number of scopes,
--       for each scope: its name, requests a minute, tokens a minute, tokens a day, concurrent
--       ('' = no limit); then for each answer: id, tokens
-- Returns {1 | 0, index of the scope that refuses, what, wait ms (-1 = for ever),
--          then for each scope: requests left, ms until they are all back, the same of tokens}
-- Atomic because: what two requests see as left may be enough for one only.
-- GCRA: `req` and `tok` are the times (µs) when the bucket will be full; a minute's worth fits in.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local MINUTE, today = 60000000, math.floor(clock[1] / 86400)
local scopes, at = {}, 4
for i = 1, tonumber(ARGV[3]) do
  local known = redis.call('HMGET', KEYS[2 + i], 'req', 'tok', 'day', 'used', 'running')
  scopes[i] = {
    key = KEYS[2 + i], name = ARGV[at],
    rpm = tonumber(ARGV[at + 1]), tpm = tonumber(ARGV[at + 2]),
    tpd = tonumber(ARGV[at + 3]), most = tonumber(ARGV[at + 4]),
    req = math.max(now, tonumber(known[1] or 0)), tok = math.max(now, tonumber(known[2] or 0)),
    used = tonumber(known[3] or -1) == today and tonumber(known[4]) or 0,
    running = tonumber(known[5] or 0),
  }
  at = at + 5
end
local answers, total = {}, 0
for i = at, #ARGV, 2 do
  answers[#answers + 1] = {ARGV[i], tonumber(ARGV[i + 1])}
  total = total + tonumber(ARGV[i + 1])
end

-- What nobody has settled by its deadline holds nobody up any longer; it stays charged.
local late = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', math.floor(now / 1000), 'LIMIT', 0, 100)
for _, id in ipairs(late) do
  local reservation = redis.call('HGET', KEYS[2], id)
  for _, each in ipairs(reservation and cjson.decode(reservation) or {}) do
    redis.call('HINCRBY', ARGV[1] .. 'scope:' .. each[1], 'running', -1)
    for _, scope in ipairs(scopes) do
      if scope.name == each[1] then scope.running = scope.running - 1 end
    end
  end
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end

local worst, refusing, what = 0, 0, ''
local function refuse(index, kind, wait)
  if worst >= 0 and (wait < 0 or wait > worst) then worst, refusing, what = wait, index, kind end
end
for i, scope in ipairs(scopes) do
  if scope.most and scope.running + #answers > scope.most then
    refuse(i, 'concurrent', #answers > scope.most and -1 or 1000000)
  end
  if scope.tpd and scope.used + total > scope.tpd then
    local midnight = (today + 1) * 86400000000 - now
    refuse(i, 'day', total > scope.tpd and -1 or midnight)
  end
  if scope.rpm then
    scope.req_at = scope.req + MINUTE / scope.rpm
    if scope.req_at - now > MINUTE then refuse(i, 'requests', scope.req_at - now - MINUTE) end
  end
  if scope.tpm then
    -- A request of more than a minute's worth waits for a full bucket, and leaves it in debt when
    -- it is settled.
    scope.part = math.min(1, scope.tpm / math.max(1, total))
    scope.tok_at = scope.tok + math.floor(total * scope.part) * MINUTE / scope.tpm
    if scope.tok_at - now > MINUTE then refuse(i, 'tokens', scope.tok_at - now - MINUTE) end
  end
end

local function number(x) return string.format('%.0f', x) end
if refusing == 0 then
  for _, scope in ipairs(scopes) do
    scope.req, scope.tok = scope.req_at or scope.req, scope.tok_at or scope.tok
    redis.call('HSET', scope.key, 'req', number(scope.req), 'tok', number(scope.tok), 'day', today,
               'used', number(scope.used + total), 'running', number(scope.running + #answers))
    redis.call('EXPIRE', scope.key, 172800)
  end
  for i, answer in ipairs(answers) do
    local parts = {}
    for j, scope in ipairs(scopes) do
      parts[j] = {scope.name, answer[2], scope.part and math.floor(answer[2] * scope.part) or 0,
                  scope.tpm and MINUTE / scope.tpm or 0,
                  i == 1 and scope.rpm and MINUTE / scope.rpm or 0, today}
    end
    redis.call('HSET', KEYS[2], answer[1], cjson.encode(parts))
    redis.call('ZADD', KEYS[1], ARGV[2], answer[1])
  end
  redis.call('EXPIRE', KEYS[1], 172800)
  redis.call('EXPIRE', KEYS[2], 172800)
end

local reply = {refusing == 0 and 1 or 0, refusing, what, number(math.ceil(worst / 1000))}
if worst < 0 then reply[4] = '-1' end
for _, scope in ipairs(scopes) do
  local function left(rate, full_at)
    local behind = full_at - now
    reply[#reply + 1] = number(math.max(0, math.floor((MINUTE - behind) * (rate or 0) / MINUTE)))
    reply[#reply + 1] = number(math.max(0, math.ceil(behind / 1000)))
  end
  left(scope.rpm, scope.req)
  left(scope.tpm, scope.tok)
end
return reply
