#!lua flags=allow-oom
-- Removes the row of an instance that has been silent for long, unless it has just come back.
-- KEYS[1]: the hash of instances. ARGV[1]: the instance's id. ARGV[2]: the row as it was seen.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
