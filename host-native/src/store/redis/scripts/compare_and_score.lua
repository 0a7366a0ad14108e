-- Gives a member another score, or takes it out, if nobody changed its score since it was read.
--
-- KEYS: sorted set. ARGV: member, score as it was read, new score or -. Gives 1 if it was done.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then
  return 0
end
if ARGV[3] == '-' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
