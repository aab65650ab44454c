#!lua flags=allow-oom
-- Take up to n jobs: first those of incarnations whose lease has run out, then new ones.
-- KEYS: 1 jobs, 2 my lease, 3 my control list, 4 batches, 5 deaths
-- ARGV: 1 incarnation, 2 n, 3 lease prefix, 4 control prefix, 5 the protocol that I don't refuse
-- Returns {"FENCED"}
--       | {"OK", last id of the stream, now ms, {{id, job, deliveries, deaths, reclaimed, after}, …}}
-- (deliveries: replicas in whose batch it was; deaths: of them that ran it alone; after: the journal
-- has nothing of it up to this id)
-- Atomic because: a reclaim must see the owner's lease gone and move the job in one instant.
-- Ownership is by incarnation, never by how long a message was idle: a slow replica keeps its jobs.
if redis.call('EXISTS', KEYS[2]) == 0 then return {'FENCED'} end
local me, room, taken = ARGV[1], tonumber(ARGV[2]), {}

local function reclaim(name, pending)
  -- What it was about to run when it died: all that it had, or one job alone, or none ('-').
  local batch = redis.call('HGET', KEYS[4], name)
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], 'replicas', '-', '+', room, name)) do
    local id, deliveries = entry[1], entry[4]
    local deaths = tonumber(redis.call('HGET', KEYS[5], id) or 0)
    if not batch or batch == id then deliveries = deliveries + 1 end
    if batch == id then deaths = redis.call('HINCRBY', KEYS[5], id, 1) end
    local claimed = redis.call('XCLAIM', KEYS[1], 'replicas', me, 0, id, 'RETRYCOUNT', deliveries)
    if claimed[1] then
      taken[#taken + 1] = {id, claimed[1][2][2], deliveries, deaths, 1, claimed[1][2][8] or ''}
      room = room - 1
    end
    pending = pending - 1
  end
  for _, message in ipairs(redis.call('LRANGE', ARGV[4] .. name, 0, -1)) do
    redis.call('RPUSH', KEYS[3], message)  -- cancellations follow the jobs
  end
  return pending
end

for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'replicas')) do
  local name, pending = info[2], info[4]
  if name ~= me and name ~= ARGV[5] and redis.call('EXISTS', ARGV[3] .. name) == 0 then
    if room > 0 and pending > 0 then pending = reclaim(name, pending) end
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'replicas', name)
      redis.call('DEL', ARGV[4] .. name)
      redis.call('HDEL', KEYS[4], name)
    end
  end
end
if room > 0 then
  local fresh = redis.call('XREADGROUP', 'GROUP', 'replicas', me, 'COUNT', room,
                           'STREAMS', KEYS[1], '>')
  if fresh then
    for _, entry in ipairs(fresh[1][2]) do
      taken[#taken + 1] = {entry[1], entry[2][2], 1, 0, 0, entry[2][8] or ''}
    end
  end
end
local stream = redis.call('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #stream, 2 do
  if stream[i] == 'last-generated-id' then last = stream[i + 1] end
end
local now = redis.call('TIME')
return {'OK', last, string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), taken}
