-- Reads a group at one moment, and makes it where it is missing: whoever is told of its history may count on it.
--
-- KEYS: group, order, history.
-- ARGV: replication id or - where it is not known, epoch for a new history, floor, whether a sync is stamped (1, 0), what to read (none, item, page,
--   all), item, created_seq after which the page begins, items_max, bytes_max, empty_ms, expected epoch or *, seq after which
--   changes are read or -, then `c<id>` of the clients that are asked about.
-- Gives: now, meta, timestamp of the sync, whether more items follow (1, 0), items (id, head, value) or with `all` the
--   whole hash, the clients' last mutations, changes (id, fields) or nothing where the history does not reach back.
local group, order, history = KEYS[1], KEYS[2], KEYS[3]
local A = ARGV
local LOOK_ARGS = 12
local CHUNK = 50
-- As in `commit.lua`.
local META = '>dddddddddddd'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The caller may not know of a failover, or know of one before others do: the server knows.
local function replication_now()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or A[1]
end

local floor = tonumber(A[3])
local m = redis.call('HGET', group, 'm')
local is_kept = m and true or false
local epoch, replication, names, seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms
if m then
  seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms, names = struct.unpack(META, m)
  epoch, replication = string.match(m, '^(%S+) (%S+)$', names)
  if replication ~= A[1] then
    local told = replication_now()
    if told ~= replication then
      is_kept = false
      epoch, replication, first, trimmed = A[2], told, seq + 1, total
      event_ms, gone_ms, sync_ms = math.max(event_ms, floor), math.max(gone_ms, floor), math.max(sync_ms, floor)
    end
  end
else
  epoch, replication, seq, event_ms, gone_ms, sync_ms = A[2], A[1] == '-' and replication_now() or A[1], 0, floor, floor, floor
  items, bytes, uses, known, first, trimmed, total, expiring_ms = 0, 0, 0, 0, 1, 0, 0, now
end
if A[4] == '1' and sync_ms <= event_ms then
  sync_ms = math.max(now, floor, event_ms + 1)
end
local function meta_now()
  return struct.pack(META, seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms)
    .. epoch .. ' ' .. replication
end
local meta = meta_now()
if meta ~= m then
  local written = redis.pcall('HSET', group, 'm', meta)
  local refused = type(written) == 'table' and written.err
  if refused then
    if not (string.find(refused, '^OOM') or string.find(refused, '^MISCONF') or string.find(refused, '^NOREPLICAS')) then
      return written
    end
    -- A server that takes no writes can be read all the same. A history that could not be begun has a name that no other one
    -- has, and each reader is told the same: with the first write another one begins.
    if not is_kept then
      epoch = 'unkept'
      meta = meta_now()
    end
  elseif not m then
    redis.call('PEXPIRE', group, A[10])
  end
end

local found, more = {}, 0
local function append(ids)
  local fields = {}
  for _, id in ipairs(ids) do
    fields[#fields + 1] = 'h' .. id
    fields[#fields + 1] = 'v' .. id
  end
  return redis.call('HMGET', group, unpack(fields))
end
if A[5] == 'item' then
  local state = append({A[6]})
  if state[1] then
    found = {A[6], state[1], state[2]}
  end
elseif A[5] == 'all' then
  found = redis.call('HGETALL', group)
elseif A[5] == 'page' then
  local after, items_max, bytes_max = '(' .. A[7], tonumber(A[8]), tonumber(A[9])
  local count, taken, offset = 0, 0, 0
  local ids
  repeat
    ids = redis.call('ZRANGE', order, after, '+inf', 'BYSCORE', 'LIMIT', offset, CHUNK)
    offset = offset + #ids
    if ids[1] then
      local states = append(ids)
      for index, id in ipairs(ids) do
        if 0 < count and (items_max <= count or bytes_max <= taken) then
          more = 1
          break
        end
        local head, value = states[index * 2 - 1], states[index * 2]
        if head and value then
          count = count + 1
          taken = taken + #id + #value
          found[count * 3 - 2], found[count * 3 - 1], found[count * 3] = id, head, value
        end
      end
    end
  until more == 1 or #ids < CHUNK
end

local records = {}
if LOOK_ARGS < #A then
  records = redis.call('HMGET', group, unpack(A, LOOK_ARGS + 1))
end
local changes = false
if A[12] ~= '-' and (A[11] == '*' or A[11] == epoch) then
  local since = tonumber(A[12])
  if since == seq then
    changes = {}
  elseif since < seq and first <= since + 1 then
    changes = redis.call('XRANGE', history, (since + 1) .. '-0', '+')
  end
end
return {tostring(now), meta, tostring(sync_ms), more, found, records, changes}
