-- Tries the commands that are needed on a key that nobody uses, and gives those that our user may not run, each with what the server says.
-- KEYS[1]: that key. ARGV[1]: a channel. ARGV[2]: how to publish, or empty. ARGV[3]: 1 where groups are kept, else 0.
local key = KEYS[1]
local tried = {
  {'TIME'}, {'GET', key}, {'SET', key, '1', 'PX', '1000'}, {'DEL', key},
  {'HSET', key, 'a', '1'}, {'HGET', key, 'a'}, {'HMGET', key, 'a'}, {'HGETALL', key}, {'HLEN', key},
  {'PEXPIRE', key, '1000'}, {'HDEL', key, 'a'},
}
if ARGV[2] ~= '' then
  table.insert(tried, {ARGV[2], ARGV[1], ''})
end
local of_groups = {
  {'INFO', 'replication'}, {'PERSIST', key},
  {'XADD', key, 'NOMKSTREAM', '*', 'a', '1'}, {'XRANGE', key, '-', '+'}, {'XREVRANGE', key, '+', '-'}, {'XTRIM', key, 'MAXLEN', '0'},
  {'ZADD', key, 'XX', '1', 'a'}, {'ZSCORE', key, 'a'}, {'ZCARD', key}, {'ZRANGE', key, '0', '0'}, {'ZREM', key, 'a'}, {'ZPOPMIN', key},
}
if ARGV[3] == '1' then
  for _, command in ipairs(of_groups) do
    table.insert(tried, command)
  end
end
local refused = {}
for _, command in ipairs(tried) do
  local answer = redis.pcall(unpack(command))
  local said = type(answer) == 'table' and answer.err
  -- Other errors, such as want of memory, say nothing about permissions.
  if said and (string.find(said, 'user executing', 1, true) or string.find(said, 'permission', 1, true)
    or string.find(said, 'ACL', 1, true) or string.find(said, 'nknown', 1, true)) then
    table.insert(refused, command[1])
    table.insert(refused, said)
  end
end
return refused
