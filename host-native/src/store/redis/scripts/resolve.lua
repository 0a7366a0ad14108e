-- Finds out what became of a batch whose answer was lost, and sees to it that it does not happen later.
--
-- KEYS: group, history. ARGV: batch, seq after which it may have been committed, time before which it was not sent.
-- Gives: meta or nothing, whether the history reaches back so far (1, 0), the batch's changes (id, fields).
local group, history = KEYS[1], KEYS[2]
local batch, after = ARGV[1], tonumber(ARGV[2])
local meta = redis.call('HGET', group, 'm')
redis.call('HSET', group, 'f' .. batch, '1')
if not meta then
  redis.call('PEXPIRE', group, 3600000)
  return {false, 1, {}}
end
local seq, first = string.match(meta, '^%S+ %S+ (%d+) %d+ %d+ %d+ %d+ %d+ %d+ %d+ (%d+)')
local oldest = redis.call('XRANGE', history, '-', '+', 'COUNT', 1)[1]
-- No timestamp is behind the clock.
local reaches = tonumber(first) <= after + 1 or oldest and tonumber(oldest[2][2]) < tonumber(ARGV[3])
local found = {}
for _, entry in ipairs(redis.call('XRANGE', history, string.format('%.0f-0', after + 1), '+')) do
  if string.sub(entry[2][6], 1, #batch + 1) == batch .. ':' then
    found[#found + 1] = entry
  end
end
return {meta, reaches and 1 or 0, found}
