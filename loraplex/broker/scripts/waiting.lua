#!lua flags=no-writes,allow-oom
-- The jobs that wait for a replica, oldest first.
-- KEYS: 1 jobs   ARGV: 1 at most so many
-- Returns their stream ids. Atomic because: a job that is taken between two calls would be missed.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])  -- an error: no stream yet
local after = '-'
if not groups.err and groups[1] then
  for i = 1, #groups[1], 2 do
    if groups[1][i] == 'last-delivered-id' then after = '(' .. groups[1][i + 1] end
  end
end
local ids = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', ARGV[1])) do
  ids[#ids + 1] = entry[1]
end
return ids
