#!lua flags=allow-oom
-- A heartbeat: notes that an instance is alive, by this server's clock, and gives what there was before and all instances.
-- KEYS[1]: the hash of instances. ARGV[1]: the instance's id. ARGV[2]: what it says of itself, JSON without its opening brace.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('{"beat_ms":%.0f,', now) .. ARGV[2])
return {now, before, redis.call('HGETALL', KEYS[1])}
