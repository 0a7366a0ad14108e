-- Notes that a group has an item which may go at a time. Always changes what is there, so that nobody who looked before
-- takes the group out.
--
-- KEYS: due. ARGV: group, when in Unix milliseconds.
local due, group, at = KEYS[1], ARGV[1], tonumber(ARGV[2])
local noted = tonumber(redis.call('ZSCORE', due, group) or '')
if not noted or at < noted then
  noted = at
else
  noted = math.ceil(noted) - 1
end
return redis.call('ZADD', due, string.format('%.0f', noted), group)
