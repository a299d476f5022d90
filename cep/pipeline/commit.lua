-- One commit of a pipeline: outputs, dead letters, state and positions change
-- together or not at all. Neither MULTI nor a script rolls back, so everything
-- that could fail is looked at before the first write, and entries go again if
-- a later one is refused (a stream whose ids have run out, a missing right).
--
-- KEYS  1 meta, 2 state, 3 dead letters, 4.. output streams
-- ARGV  1 owner, 2 commit number expected, 3 about how many dead letters to keep
--       at most (0: all), 4.. sections, each with its length:
--       outputs: n, then n times entries of one shape: key index, a letter for
--         each word of an entry, c if it is the same in all, number of entries,
--         those words, then the others of each entry
--       state fields set: n, then n times (field, value)
--       state fields removed: n, then the fields
--       meta fields set: n, then n times (field, value)
-- Returns {"ok", seq, dead letters ever trimmed} or {"fenced", owner} or {"seq", found} or {"type", key}.
-- The server's time is for showing only: nothing that is decided depends on it.

for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  local wanted = 'stream'
  if i <= 2 then wanted = 'hash' end
  if found ~= 'none' and found ~= wanted then return {'type', key} end
end
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner ~= ARGV[1] then return {'fenced', owner or ''} end
local seq = redis.call('HGET', KEYS[1], 'seq') or '0'
if seq ~= ARGV[2] then return {'seq', seq} end

local at = 4
local function word()
  local value = ARGV[at]
  at = at + 1
  return value
end

local most, letters, new_letters = ARGV[3], 0, 0
if most ~= '0' then letters = redis.call('XLEN', KEYS[3]) end
-- Writes how many dead letters have been trimmed, also if the commit fails then.
local function trimmed()
  local so_far = redis.call('HGET', KEYS[1], 'trimmed') or '0'
  if new_letters == 0 or most == '0' then return so_far end
  local gone = letters + new_letters - redis.call('XLEN', KEYS[3])
  so_far = string.format('%d', tonumber(so_far) + gone)
  if gone > 0 then redis.call('HSET', KEYS[1], 'trimmed', so_far) end
  return so_far
end

-- No changes, but what a full server or a missing right would refuse is refused
-- here and not halfway. HSET first: after one write a full server lets all pass.
redis.call('HSET', KEYS[1], 'owner', owner)
redis.call('HDEL', KEYS[1], '')
local added = {}
for _ = 1, tonumber(word()) do
  local key, mask, entries = KEYS[tonumber(word())], word(), tonumber(word())
  local words, places = {}, {}
  for i = 1, #mask do
    if mask:sub(i, i) == 'c' then
      words[i] = word()
    else
      words[i] = ''
      places[#places + 1] = i
    end
  end
  for _ = 1, entries do
    for _, i in ipairs(places) do words[i] = word() end
    local id
    if key == KEYS[3] and most ~= '0' then
      id = redis.pcall('XADD', key, 'MAXLEN', '~', most, '*', unpack(words))
    else
      id = redis.pcall('XADD', key, '*', unpack(words))
    end
    if type(id) == 'table' then
      trimmed()
      for _, entry in ipairs(added) do redis.call('XDEL', entry[1], entry[2]) end
      return id
    end
    added[#added + 1] = {key, id}
    if key == KEYS[3] then new_letters = new_letters + 1 end
  end
end
for _ = 1, tonumber(word()) do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(word()) do
  redis.call('HDEL', KEYS[2], word())
end
local next_seq = string.format('%d', tonumber(seq) + 1)
for _ = 1, tonumber(word()) do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
redis.call('HSET', KEYS[2], 'seq', next_seq)
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'seq', next_seq, 'alive', now, 'committed', now)
return {'ok', next_seq, trimmed()}
