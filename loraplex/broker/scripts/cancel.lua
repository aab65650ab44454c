#!lua flags=allow-oom
-- Stop a request: because its client asks for it, or when nobody waits for it any more.
-- KEYS: 1 jobs, 2 journal, 3 the request's record, 4 deaths, 5 usage
-- ARGV: 1 control prefix, 2 lease prefix, 3 reply channel prefix,
--       4 who leaves ('' = cancel, whoever waits), 5 '1' = for good: it has gone unserved,
--       then for each of its answers: stream id, cancel message, step message if no replica has it
--       (its last 26 bytes are for its id in the journal)
-- Returns "KEPT" (somebody else waits) | "STOPPED" | "ENDED" (nothing was left to stop)
-- Atomic because: between the look and the removal a replica could take the job, or a client return.
local leaver = ARGV[4]
if leaver ~= '' then
  redis.call('HDEL', KEYS[3], 'w:' .. leaver)
  for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
    if string.sub(name, 1, 2) == 'w:' then return 'KEPT' end
  end
end
local verdict, told = 'ENDED', false
for i = 6, #ARGV, 3 do
  local id = ARGV[i]
  local job = redis.call('XRANGE', KEYS[1], id, id)[1]
  if job then
    verdict = 'STOPPED'
    local owner = redis.pcall('XPENDING', KEYS[1], 'replicas', id, id, 1)
    owner = not owner.err and owner[1] and owner[1][2]
    if owner and redis.call('EXISTS', ARGV[2] .. owner) == 1 then
      redis.call('RPUSH', ARGV[1] .. owner, ARGV[i + 1])
      redis.call('EXPIRE', ARGV[1] .. owner, 600)
      told = true
    else
      local entry = string.format('%-26s', redis.call('XADD', KEYS[2], '*', 's', ARGV[i + 2]))
      redis.call('PUBLISH', ARGV[3] .. job[2][6], string.sub(ARGV[i + 2], 1, -27) .. entry)
      if owner then redis.call('XACK', KEYS[1], 'replicas', id) end
      redis.call('XDEL', KEYS[1], id)
      redis.call('XADD', KEYS[5], '*', 'e', id, 'j', job[2][2], 'status', 'cancelled', 'error', '')
      redis.call('HDEL', KEYS[4], id)
    end
  end
end
-- Who comes back too late finds nothing half done, and may send the same again when no replica has
-- the old one any more.
if ARGV[5] == '1' and verdict == 'STOPPED' then
  if told then redis.call('HSET', KEYS[3], 'stopped', '1') else redis.call('DEL', KEYS[3]) end
end
return verdict
