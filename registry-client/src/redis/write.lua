-- REGISTER and HEARTBEAT: take or renew the lease of one id, always as a full upsert.
-- ARGV: channel, mode (register|heartbeat), id, nonce, generation held, ttl ms, JSON before and after the
--       generation's digits, announce (1|0), record bytes max, listed ms.
-- Returns {status, generation, now}: status `ok`, or `fenced` with the generation that holds the id.
local channel, mode, id, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local bytes_max, listed_ms = tonumber(ARGV[10]), tonumber(ARGV[11])

local stored, stored_nonce = holder(nodes, id, bytes_max)
local generation
if mode == 'register' then
  local left = holder(departed, id, bytes_max)
  generation = math.max(stored + 1, left + 1, now)
else
  if stored_nonce ~= nonce and stored >= held and stored > 0 then
    return { 'fenced', digits(stored), digits(now) }
  end
  -- A register of ours whose answer was lost may have raised it.
  generation = held
  if stored_nonce == nonce then generation = math.max(stored, held) end
end

local appeared = redis.call('HEXISTS', nodes, id) == 0 or redis.call('ZSCORE', deadlines, id) == false
redis.call('HSET', nodes, id, ARGV[7] .. digits(generation) .. ARGV[8])
redis.call('ZADD', deadlines, digits(now + ttl), id)
redis.call('HDEL', departed, id)
purge(listed_ms)
if mode == 'register' then
  announce(channel, 'registered', id, generation)
elseif appeared then
  announce(channel, 'restored', id, generation)
elseif ARGV[9] == '1' then
  announce(channel, 'changed', id, generation)
end
return { 'ok', digits(generation), digits(now) }
