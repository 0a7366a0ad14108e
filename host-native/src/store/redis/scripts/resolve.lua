-- Finds out what became of a batch whose answer was lost, and sees to it that it does not happen later.
--
-- KEYS: group, history. ARGV: batch, seq after which it may have been committed, time before which it was not sent, time after
-- which it cannot be carried out anyway: the mark is kept until then, and goes with the next that is made.
-- Gives: meta or nothing, whether the history reaches back so far (1, 0), the batch's changes (id, fields).
local group, history = KEYS[1], KEYS[2]
local batch, after = ARGV[1], tonumber(ARGV[2])
local meta = redis.call('HGET', group, 'm')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local marks = {batch .. ' ' .. ARGV[4]}
for name, until_ms in string.gmatch(redis.call('HGET', group, 'f') or '', '(%S+) (%d+)\n') do
  if now <= tonumber(until_ms) and name ~= batch then
    marks[#marks + 1] = name .. ' ' .. until_ms
  end
end
redis.call('HSET', group, 'f', table.concat(marks, '\n') .. '\n')
if not meta then
  redis.call('PEXPIRE', group, 3600000)
  return {false, 1, {}}
end
-- As in `commit.lua`; the oldest change is the ninth number.
local first = struct.unpack('>d', meta, 65)
local oldest = redis.call('XRANGE', history, '-', '+', 'COUNT', 1)[1]
-- No timestamp is behind the clock.
local reaches = first <= after + 1 or oldest and tonumber(string.match(oldest[2][2], '^%d+')) < tonumber(ARGV[3])
local found = {}
for _, entry in ipairs(redis.call('XRANGE', history, string.format('%.0f-0', after + 1), '+')) do
  if string.match(entry[2][2], '^%d+ %S+ ([^:]+)') == batch then
    found[#found + 1] = entry
  end
end
return {meta, reaches and 1 or 0, found}
