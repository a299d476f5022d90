-- Who owns a pipeline, by the server's clock.
--
-- KEYS  1 meta
-- ARGV  take TOKEN HOLDER EXPECTED   become the owner after EXPECTED
--       beat TOKEN                   say that the owner is alive
--       release TOKEN                say that the owner has gone
-- Returns {"ok", ""} or {"fenced", owner, holder}.

local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local owner = redis.call('HGET', KEYS[1], 'owner') or ''
local expected = ARGV[2]
if ARGV[1] == 'take' then expected = ARGV[4] end
if owner ~= expected then
  return {'fenced', owner, redis.call('HGET', KEYS[1], 'holder') or ''}
end
if ARGV[1] == 'take' then
  redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'holder', ARGV[3], 'since', now)
end
if ARGV[1] == 'release' then now = '0' end
redis.call('HSET', KEYS[1], 'alive', now)
return {'ok', ''}
