-- Shared by every script. KEYS: nodes, deadlines, version, departed. Only Redis TIME counts.
local nodes, deadlines, version, departed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function digits(number) return string.format('%.0f', number) end

-- Generation and nonce of a stored JSON document; 0 and '' if it is missing or not ours to read.
local function holder(hash, id, bytes_max)
  if redis.call('HSTRLEN', hash, id) > bytes_max then return 0, '' end
  local json = redis.call('HGET', hash, id)
  if not json then return 0, '' end
  local ok, record = pcall(cjson.decode, json)
  if not ok or type(record) ~= 'table' or type(record.generation) ~= 'number' then return 0, '' end
  -- Beyond 2^53 numbers are not exact, and no clock gives such a generation.
  if record.generation < 0 or record.generation > 9007199254740992 then return 0, '' end
  local nonce = record.nonce
  if type(nonce) ~= 'string' then nonce = '' end
  return record.generation, nonce
end

local function announce(channel, event, id, generation)
  local count = redis.pcall('INCR', version)
  if type(count) ~= 'number' then
    -- Somebody wrote something else there.
    count = now
    redis.call('SET', version, digits(count))
  end
  redis.call('PUBLISH', channel, '{"event":"' .. event .. '","id":"' .. id .. '","generation":'
    .. digits(generation) .. ',"version":' .. digits(count) .. '}')
end

-- Expired records stay listed for a while (readers show them as dead); whoever writes next after that
-- takes them out, some at a time.
local function purge(listed_ms)
  local ended = redis.call('ZRANGEBYSCORE', deadlines, '-inf', digits(now - listed_ms), 'LIMIT', 0, 100)
  for _, id in ipairs(ended) do
    redis.call('HDEL', nodes, id)
    redis.call('ZREM', deadlines, id)
  end
end
