#!lua flags=no-writes,allow-oom
-- A lane at one instant, for the scaler.
-- KEYS: 1 jobs, 2 reports, 3 gate, 4 usage   ARGV: 1 lease prefix
-- Returns {now ms, jobs, jobs taken, oldest waiting id ('' = none), {incarnation, lease, report, …},
--          {gate's state, its reason, jobs that ever arrived}, usage that is not stored}
-- (lease: "serve", "drain" or "" when it has run out). Atomic because: the parts must fit together.
local now = redis.call('TIME')
local jobs, taken, oldest = redis.call('XLEN', KEYS[1]), 0, ''
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])  -- an error: no stream yet
local delivered = '-'
if not groups.err and groups[1] then
  for i = 1, #groups[1], 2 do
    if groups[1][i] == 'pending' then taken = groups[1][i + 1] end
    if groups[1][i] == 'last-delivered-id' then delivered = '(' .. groups[1][i + 1] end
  end
end
local first = redis.call('XRANGE', KEYS[1], delivered, '+', 'COUNT', 1)
if first[1] then oldest = first[1][1] end
local replicas = {}
local reports = redis.call('HGETALL', KEYS[2])
for i = 1, #reports, 2 do
  replicas[#replicas + 1] = reports[i]
  replicas[#replicas + 1] = redis.call('GET', ARGV[1] .. reports[i]) or ''
  replicas[#replicas + 1] = reports[i + 1]
end
return {string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)),
        jobs, taken, oldest, replicas,
        redis.call('HMGET', KEYS[3], 'state', 'reason', 'arrived'), redis.call('XLEN', KEYS[4])}
