-- Take up to n jobs: first those of incarnations whose lease has run out, then new ones.
-- KEYS: 1 jobs, 2 my lease, 3 my control list
-- ARGV: 1 incarnation, 2 n, 3 lease prefix, 4 control prefix
-- Returns {"FENCED"} | {"OK", last id of the stream, {{id, job, deliveries}, …}}
-- Atomic because: a reclaim must see the owner's lease gone and move the job in one instant.
-- Ownership is by incarnation, never by how long a message was idle: a slow replica keeps its jobs.
if redis.call('EXISTS', KEYS[2]) == 0 then return {'FENCED'} end
local me, room, taken = ARGV[1], tonumber(ARGV[2]), {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'replicas')) do
  local name, pending = info[2], info[4]
  if name ~= me and redis.call('EXISTS', ARGV[3] .. name) == 0 then
    if room > 0 and pending > 0 then
      local lost = redis.call('XPENDING', KEYS[1], 'replicas', '-', '+', room, name)
      for _, entry in ipairs(lost) do
        local claimed = redis.call('XCLAIM', KEYS[1], 'replicas', me, 0, entry[1],
                                   'RETRYCOUNT', entry[4] + 1)
        if claimed[1] then
          taken[#taken + 1] = {claimed[1][1], claimed[1][2][2], entry[4] + 1}
          room = room - 1
        end
        pending = pending - 1
      end
      -- cancellations follow the jobs
      for _, message in ipairs(redis.call('LRANGE', ARGV[4] .. name, 0, -1)) do
        redis.call('RPUSH', KEYS[3], message)
      end
    end
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'replicas', name)
      redis.call('DEL', ARGV[4] .. name)
    end
  end
end
if room > 0 then
  local fresh = redis.call('XREADGROUP', 'GROUP', 'replicas', me, 'COUNT', room,
                           'STREAMS', KEYS[1], '>')
  if fresh then
    for _, entry in ipairs(fresh[1][2]) do
      taken[#taken + 1] = {entry[1], entry[2][2], 1}
    end
  end
end
local stream = redis.call('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #stream, 2 do
  if stream[i] == 'last-generated-id' then last = stream[i + 1] end
end
return {'OK', last, taken}
