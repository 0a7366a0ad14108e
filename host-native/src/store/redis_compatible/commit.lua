-- Compares the fields that a batch was decided on, writes what it came to and tells of it, in one step or not at all.
--
-- KEYS[1]  the group's hash
-- ARGV     deadline (Unix ms by this server's clock), channel, number of fields;
--          per field: name, "1" if it was there else "0", its text, "set", "del" or "" for what becomes of it, its new text;
--          then the frames to publish, in order
-- Gives    {"done"}, {"late"}, or {"changed", number of fields of the hash, the texts of the fields as they are now}

local time = redis.call('TIME')
if tonumber(ARGV[1]) < time[1] * 1000 + math.floor(time[2] / 1000) then
  return {'late'}
end
local fields = tonumber(ARGV[3])
local names = {}
local changed = false
for i = 1, fields do
  local at = 4 + (i - 1) * 5
  names[i] = ARGV[at]
  local expected = ARGV[at + 1] == '1' and ARGV[at + 2]
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= expected then
    changed = true
  end
end
if changed then
  return {'changed', redis.call('HLEN', KEYS[1]), redis.call('HMGET', KEYS[1], unpack(names))}
end
for i = 1, fields do
  local at = 4 + (i - 1) * 5
  if ARGV[at + 3] == 'set' then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 4])
  elseif ARGV[at + 3] == 'del' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
for i = 4 + fields * 5, #ARGV do
  redis.call('PUBLISH', ARGV[2], ARGV[i])
end
return {'done'}
