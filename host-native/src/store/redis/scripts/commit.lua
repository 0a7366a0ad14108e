-- Commits a batch of commands of one group, one after another, and stops at the first that was decided on something else
-- than what is there. Decides nothing but what only this place can know: sequence, time, and whether there is room.
--
-- KEYS: group, order, history, clients, expiries.
-- ARGV: numbers (deadline, floor, items_max, bytes_max, records_max, history_changes_max, history_bytes_max,
--   message_bytes_max, reply_bytes_max, empty_ms, number of items, number of clients, turn_ms), batch, replication id or - where it is not
--   known, expected epoch or *, whether bodies are kept (1, 0) and how to publish (P, S, -), channel, channel of the
--   stream's triggers or empty, name of the group in messages; then for each item `h<id>`, for each client `c<id>`, and for
--   each command COMMAND_ARGS:
--   op, item (0: none), client (0: none), expected item, expected client, mutation taken or empty, ttl, body, where the value
--   begins in it, its length.
-- Ops: n nothing, q and Q the same but tell the item's last change (Q: events count), w write, d delete, E delete if its time has come, e event, x announced, X announced delete.
-- Expected item: its seq, a absent, t as left by this batch, * anything. Expected client: its last mutation, n new, u unknown.
-- Ttl: empty leaves it, - takes it away, a number sets it.
-- Gives: status (done, conflict, late, fenced, waits), now, meta (empty: there is no such group), for each command done a line (n nothing, q item's last
--   change or - and the group's seq, I or B refused for lack of room, or seq timestamp base), then where it stopped: items (number, head, value) and clients (number, last).
--
-- Numbers stay below 1e14, which a script prints exactly.
local COMMAND_ARGS = 10
-- Numbers of a group's meta; epoch and replication id follow. Binary, because text costs more than all the rest.
local META = '>dddddddddddd'
-- Numbers of an item's head.
local HEAD = '>dddddddddd'
local GROUP_ARGS = 8
-- Values that operations lead to are left out of the history, up to so many bytes of operations: who needs them applies these.
local OPS_BYTES_MAX = 65536
-- A turn is never longer.
local TURN_MAX_MS = 1000

-- Asked for here once, because each global costs a search.
local call, format, sub, byte, match = redis.call, string.format, string.sub, string.byte, string.match
local max, floor_of, pack, unpack_numbers = math.max, math.floor, struct.pack, struct.unpack

local group, order, history, clients, expiries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local A = ARGV
local deadline, floor, items_max, bytes_max, records_max, changes_max, history_bytes_max, message_bytes_max,
  reply_bytes_max, empty_ms, items_count, clients_count, turn_ms = unpack_numbers('>ddddddddddddd', A[1])
local batch = A[2]
local time = call('TIME')
local now = time[1] * 1000 + floor_of(time[2] / 1000)
if now > deadline then
  return {'late', format('%d', now)}
end
local fields_end = GROUP_ARGS + items_count + clients_count

local got = call('HMGET', group, 'm', 'f', 't', unpack(A, GROUP_ARGS + 1, fields_end))
-- Batches that were given up are marked here: see `resolve.lua`.
if got[2] and string.find(got[2], batch .. ' ', 1, true) then
  return {'fenced', format('%d', now)}
end
-- Who lost against others several times has a turn, in which nobody else changes items. A batch's name begins with its instance's.
local me = match(batch, '^[^x]+')
local has_turn = false
if got[3] then
  local holder, until_ms = match(got[3], '^(%S+) (%d+)$')
  has_turn = holder == me
  local left = tonumber(until_ms) - now
  if not has_turn and 0 < left and left <= TURN_MAX_MS and 0 < items_count then
    return {'waits', format('%d', now)}
  end
end

-- The caller may not know of a failover, or know of one before others do: the server knows.
local function replication_now()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and match(info, 'master_replid:(%w+)') or A[3]
end

local stamp_now = now < floor and floor or now
local epoch, replication, names, seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms
local stops = false
if got[1] then
  seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms, names =
    unpack_numbers(META, got[1])
  epoch, replication = match(got[1], '^(%S+) (%S+)$', names)
  if replication ~= A[3] then
    local told = replication_now()
    if told ~= replication then
      -- What went before stays, until the history is trimmed: for triggers that have not come so far.
      epoch, replication, first, trimmed = batch, told, seq + 1, total
      event_ms, gone_ms, sync_ms = max(event_ms, floor), max(gone_ms, floor), max(sync_ms, floor)
    end
  end
else
  epoch, replication, seq, event_ms, gone_ms, sync_ms = batch, A[3] == '-' and replication_now() or A[3], 0, floor, floor, floor
  items, bytes, uses, known, first, trimmed, total, expiring_ms = 0, 0, 0, 0, 1, 0, 0, 0
end
if A[4] ~= '*' and A[4] ~= epoch then
  stops = true
end

local keeps_bodies, publishing = sub(A[5], 1, 1) == '1', sub(A[5], 2)
local publishes = publishing ~= '-'

-- Items as this batch leaves them; parsed when needed.
local heads = {}
local function head_of(index)
  local head = heads[index]
  if head == nil then
    local text = got[3 + index]
    head = {had = text and true or false}
    if text then
      head.seq, head.created, head.timestamp, head.heard_ms, head.heard_seq, head.ttl, head.expires, head.bytes,
        head.valued, head.ops_bytes = unpack_numbers(HEAD, text)
      head.had_created, head.had_expires = head.created, head.expires
    end
    heads[index] = head
  end
  return head
end

local last = {}
local function last_of(index)
  local text = last[index]
  if text == nil then
    text = got[3 + items_count + index]
    last[index] = text
  end
  return text or (uses == known and 'n' or 'u')
end

local records
local touched_clients = {}
local function take(index, mutation)
  if records == nil then
    records = call('ZCARD', clients)
  end
  local field = A[GROUP_ARGS + items_count + index]
  uses, known = uses + 1, known + 1
  if call('ZADD', clients, uses, field) == 1 then
    records = records + 1
  end
  last[index] = mutation
  touched_clients[index] = true
  while records_max < records do
    local gone = call('ZPOPMIN', clients)[1]
    records = records - 1
    local gone_last
    for other = 1, clients_count do
      if A[GROUP_ARGS + items_count + other] == gone then
        last_of(other)
        gone_last = last[other]
        last[other] = false
        touched_clients[other] = true
      end
    end
    if gone_last == nil then
      gone_last = call('HGET', group, gone)
      call('HDEL', group, gone)
    end
    known = known - (tonumber(gone_last) or 0)
  end
end

local had_history = first <= seq
local message = {}
-- `before` and `after`: the body without its value, which is that at `valued` with all operations since.
local function keep(body, timestamp, base, index, valued, before, after)
  -- Numbers become text as seldom as can be, and by `format`: that took a third of all.
  local number = format('%d', seq)
  local moment = base and format('%d %d', timestamp, base) or format('%d -', timestamp)
  local line = number .. ' ' .. moment
  local kept_bytes = valued and #before + #after or #body
  local cost = keeps_bodies and kept_bytes + 160 or 160
  if history_bytes_max < cost or changes_max == 0 then
    if first < seq then
      call('DEL', history)
    end
    first, trimmed = seq + 1, total
  else
    total = total + cost
    local about = format('%s %s:%d %d', moment, batch, index, total)
    if valued then
      call('XADD', history, number .. '-0', 'h', about, 'f', format('%d', valued), 'b', before, 'a', after)
    elseif keeps_bodies then
      call('XADD', history, number .. '-0', 'h', about, 'd', body)
    else
      call('XADD', history, number .. '-0', 'h', about)
    end
  end
  if publishes then
    if message_bytes_max < #body then
      message[#message + 1] = line .. ' -\n'
    else
      message[#message + 1] = format('%s %d\n', line, #body) .. body
    end
  end
  return line
end

local results = {}
local at = fields_end
local commands = (#A - fields_end) / COMMAND_ARGS
local done = 0
while done < commands and not stops do
  local op, item, client = A[at + 1], tonumber(A[at + 2]), tonumber(A[at + 3])
  local expected, expected_client = A[at + 4], A[at + 5]
  local head = item ~= 0 and head_of(item) or nil
  if expected == 'a' then
    stops = head.seq ~= nil
  elseif expected == 't' then
    stops = head.refused
  elseif expected ~= '*' then
    stops = head.seq ~= tonumber(expected)
  end
  if client ~= 0 and last_of(client) ~= expected_client then
    stops = true
  end
  if not stops then
    if A[at + 6] ~= '' then
      take(client, A[at + 6])
    end
    local line = 'n'
    if op == 'w' then
      local id_bytes, length = #A[GROUP_ARGS + item] - 1, tonumber(A[at + 10])
      local old_bytes = head.seq and id_bytes + head.bytes or 0
      local new_bytes = id_bytes + length
      if not head.seq and items_max <= items then
        line, head.refused = 'I', true
      elseif old_bytes < new_bytes and bytes_max < bytes - old_bytes + new_bytes then
        line, head.refused = 'B', true
      else
        seq = seq + 1
        local timestamp = max(stamp_now, (head.heard_ms or gone_ms) + 1, event_ms, sync_ms + 1)
        event_ms = timestamp
        local base = head.seq
        local ttl = A[at + 7]
        if not head.seq then
          items = items + 1
          head.created = seq
          head.ttl = -1
        end
        if ttl ~= '' then
          head.ttl = ttl == '-' and -1 or tonumber(ttl)
        end
        head.expires = head.ttl == -1 and -1 or now + head.ttl
        head.seq, head.timestamp, head.heard_ms, head.heard_seq, head.bytes = seq, timestamp, timestamp, seq, length
        bytes = bytes - old_bytes + new_bytes
        local body, from = A[at + 8], tonumber(A[at + 9])
        head.body, head.from, head.is_changed = body, from, true
        local ops_bytes = (head.ops_bytes or 0) + #body - length + 160
        local has_ops = byte(body) % 32 >= 16
        if has_ops and keeps_bodies and base and first <= head.valued and ops_bytes <= length and ops_bytes <= OPS_BYTES_MAX then
          head.ops_bytes = ops_bytes
          line = keep(body, timestamp, base, done, head.valued, sub(body, 1, from), sub(body, from + length + 1))
        else
          head.valued, head.ops_bytes = seq, 0
          line = keep(body, timestamp, base, done)
        end
      end
    elseif op == 'q' or op == 'Q' then
      local change = '-'
      if head and head.seq then
        change = format('%d', op == 'Q' and head.heard_seq or head.seq)
      end
      line = format('q %s %d', change, seq)
    elseif op == 'd' or op == 'E' and head.seq and head.expires ~= -1 and head.expires <= now then
      seq = seq + 1
      local timestamp = max(stamp_now, head.heard_ms + 1, event_ms, sync_ms + 1)
      event_ms, gone_ms = timestamp, timestamp
      local base = head.seq
      items = items - 1
      bytes = bytes - (#A[GROUP_ARGS + item] - 1) - head.bytes
      head.seq, head.heard_ms, head.body, head.is_changed = nil, nil, nil, true
      line = keep(A[at + 8], timestamp, base, done)
    elseif op == 'e' then
      seq = seq + 1
      local timestamp = max(stamp_now, event_ms, sync_ms + 1)
      local base
      if head then
        timestamp = max(timestamp, (head.heard_ms or gone_ms) + 1)
        if head.seq then
          base = head.seq
          head.heard_ms, head.heard_seq, head.is_changed = timestamp, seq, true
        else
          gone_ms = timestamp
        end
      end
      event_ms = timestamp
      line = keep(A[at + 8], timestamp, base, done)
    elseif op == 'x' or op == 'X' then
      seq = seq + 1
      local timestamp = max(stamp_now, event_ms, sync_ms + 1)
      if head then
        timestamp = max(timestamp, event_ms + 1)
        if head.seq then
          head.heard_ms, head.heard_seq, head.is_changed = timestamp, seq, true
        end
        if op == 'X' then
          gone_ms = timestamp
        end
      end
      event_ms = timestamp
      line = keep(A[at + 8], timestamp, tonumber(A[at + 9]), done)
      -- Nobody comes back to a change of what is kept elsewhere.
      call('DEL', history)
      first, trimmed = seq + 1, total
    end
    done = done + 1
    results[done] = line
    at = at + COMMAND_ARGS
  end
end

-- What all entries up to this one took.
local function total_of(entry)
  return tonumber(match(entry[2][2], '(%d+)$'))
end

-- The history keeps at least what it must and at most an eighth more, so that it is trimmed seldom.
if first <= seq then
  local least = first
  if changes_max + floor_of(changes_max / 8) < seq - first + 1 then
    least = seq - changes_max + 1
  end
  if history_bytes_max < total - trimmed then
    -- Each entry tells what all up to it took: the first of those that may stay is found by halving.
    local limit = total - history_bytes_max + floor_of(history_bytes_max / 8)
    local low, high = least, seq
    while low < high do
      local middle = floor_of((low + high) / 2)
      local entry = call('XRANGE', history, format('%d-0', middle), format('%d-0', middle))[1]
      if total_of(entry) <= limit then
        low = middle + 1
      else
        high = middle
      end
    end
    least = low
  end
  if first < least then
    local before = call('XRANGE', history, format('%d-0', least - 1), format('%d-0', least - 1))[1]
    trimmed = total_of(before)
    call('XTRIM', history, 'MINID', format('%d-0', least))
    first = least
  end
end

local is_forgettable = items == 0 and known == 0
local was_expiring_ms = expiring_ms
if is_forgettable then
  if expiring_ms + 60000 < now or not had_history and first <= seq then
    expiring_ms = now
  end
else
  expiring_ms = 0
end

local meta = pack(META, seq, event_ms, gone_ms, sync_ms, items, bytes, uses, known, first, trimmed, total, expiring_ms)
  .. epoch .. ' ' .. replication
local writes, written = {'m', meta}, 2
local removes, removed = {}, 0
for index, head in pairs(heads) do
  if head.is_changed then
    local field = A[GROUP_ARGS + index]
    local id = sub(field, 2)
    if head.seq then
      writes[written + 1] = field
      writes[written + 2] = pack(HEAD, head.seq, head.created, head.timestamp, head.heard_ms, head.heard_seq,
        head.ttl, head.expires, head.bytes, head.valued, head.ops_bytes)
      written = written + 2
      if head.body then
        writes[written + 1] = 'v' .. id
        writes[written + 2] = sub(head.body, head.from + 1, head.from + head.bytes)
        written = written + 2
      end
      if head.created ~= head.had_created then
        call('ZADD', order, head.created, id)
      end
      if head.expires ~= head.had_expires then
        if head.expires ~= -1 then
          call('ZADD', expiries, head.expires, id)
        elseif head.had_expires then
          call('ZREM', expiries, id)
        end
      end
    elseif head.had then
      removes[removed + 1], removes[removed + 2] = field, 'v' .. id
      removed = removed + 2
      call('ZREM', order, id)
      if head.had_expires ~= -1 then
        call('ZREM', expiries, id)
      end
    end
  end
end
for index in pairs(touched_clients) do
  local field = A[GROUP_ARGS + items_count + index]
  if last[index] then
    writes[written + 1], writes[written + 2] = field, last[index]
    written = written + 2
  else
    removed = removed + 1
    removes[removed] = field
  end
end
local is_missing = not got[1] and seq == 0 and uses == 0
if is_missing then
  meta, expiring_ms = '', was_expiring_ms
elseif meta ~= got[1] then
  call('HSET', group, unpack(writes))
end
if 0 < removed then
  call('HDEL', group, unpack(removes))
end
if expiring_ms ~= was_expiring_ms then
  for _, key in ipairs({group, history, clients}) do
    if expiring_ms == 0 then
      call('PERSIST', key)
    else
      call('PEXPIRE', key, empty_ms)
    end
  end
end
if message[1] then
  local text = epoch .. ' ' .. A[8] .. '\n' .. table.concat(message)
  call(publishing == 'S' and 'SPUBLISH' or 'PUBLISH', A[6], text)
  if A[7] ~= '' then
    call('PUBLISH', A[7], text)
  end
end
if has_turn and 0 < done then
  call('HDEL', group, 't')
elseif stops and 0 < turn_ms and not is_missing then
  call('HSET', group, 't', me .. ' ' .. format('%d', now + turn_ms))
end
if not stops then
  return {'done', format('%d', now), meta, table.concat(results, '\n')}
end

-- What the rest was decided on is not so: how it is now.
local items_now, clients_now = {}, {}
local reply_bytes, asked = 0, {}
while at < #A do
  local item, client, expected = tonumber(A[at + 2]), tonumber(A[at + 3]), A[at + 4]
  if item ~= 0 and expected ~= '*' and not asked[item] and (reply_bytes == 0 or reply_bytes < reply_bytes_max) then
    asked[item] = true
    local head = head_of(item)
    local field = A[GROUP_ARGS + item]
    if not head.seq then
      items_now[#items_now + 1] = {item}
    elseif A[4] ~= epoch or expected ~= format('%d', head.seq) then
      local state = call('HMGET', group, field, 'v' .. sub(field, 2))
      reply_bytes = reply_bytes + #state[2]
      items_now[#items_now + 1] = {item, state[1], state[2]}
    end
  end
  if client ~= 0 and not asked[-client] then
    asked[-client] = true
    clients_now[#clients_now + 1] = {client, last_of(client)}
  end
  at = at + COMMAND_ARGS
end
return {'conflict', format('%d', now), meta, table.concat(results, '\n'), items_now, clients_now}
