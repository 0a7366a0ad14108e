#!lua flags=allow-oom
-- Lets the lease of a stream trigger go, with the cursor as it stands, or forgets the trigger. Says whether it was held.
-- KEYS: the trigger. ARGV: instance, term, 1 to forget it, how long it is remembered in ms.
local key = KEYS[1]
local known = redis.call('HMGET', key, 'holder', 'term')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
if ARGV[3] == '1' then
  redis.call('DEL', key)
else
  redis.call('HDEL', key, 'holder', 'until')
  redis.call('PEXPIRE', key, ARGV[4])
end
return 1
