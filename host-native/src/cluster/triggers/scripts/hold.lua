#!lua flags=allow-oom
-- Takes or renews the lease of a stream trigger, and writes what is new in its cursor where the term goes on.
-- KEYS: the trigger. ARGV: instance, term (0: none), lease in ms, how long all of it is remembered in ms, from where on
-- a trigger that nobody knows begins in Unix ms, until when the lease may be taken from another instance in Unix ms, the
-- cursor's time in Unix ms, how many groups are forgotten, these as fields, then fields and values of places.
local key = KEYS[1]
local me, my_term, lease, remembered = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local known = redis.call('HMGET', key, 'holder', 'term', 'until', 'since')
local holder, term, held_until = known[1], tonumber(known[2] or '0'), tonumber(known[3] or '0')
if holder and holder ~= me and now < held_until then
  return {'taken', held_until - now}
end
if holder and holder ~= me and tonumber(ARGV[6]) < now then
  -- It was on its way while Redis was away: whoever leads gets the time of a lease to come back.
  return {'taken', lease}
end
local held = string.format('%.0f', now + lease)
if holder == me and term == my_term and known[4] then
  redis.call('HSET', key, 'until', held, 'since', ARGV[7])
  local index = 9
  for _ = 1, tonumber(ARGV[8]) do
    redis.call('HDEL', key, ARGV[index])
    index = index + 1
  end
  while index < #ARGV do
    redis.call('HSET', key, ARGV[index], ARGV[index + 1])
    index = index + 2
  end
  redis.call('PEXPIRE', key, remembered)
  return {'renewed'}
end
term = math.max(term, my_term) + 1
redis.call('HSET', key, 'holder', me, 'term', term, 'until', held)
local answer
if known[4] then
  answer = {'begun', term, now, redis.call('HGETALL', key)}
elseif my_term > 0 then
  redis.call('HSET', key, 'since', ARGV[7])
  answer = {'recreated', term}
else
  redis.call('HSET', key, 'since', ARGV[5])
  answer = {'begun', term, now}
end
redis.call('PEXPIRE', key, remembered)
return answer
