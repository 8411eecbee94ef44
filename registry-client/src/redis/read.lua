-- Reads the registry within limits and writes nothing, so that it also works on a replica.
-- ARGV: entries max, record bytes max, id bytes max, bytes max, departures max.
-- Returns {now, version, refused, {id, deadline, JSON, ...}, {id, JSON, ...}}.
local entries_max, record_max, id_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local bytes_left, departed_max = tonumber(ARGV[4]), tonumber(ARGV[5])

local listed = redis.call('ZREVRANGEBYSCORE', deadlines, '+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, entries_max)
local entries, found, refused = {}, 0, 0
for i = 1, #listed, 2 do
  local id = listed[i]
  local bytes = redis.call('HSTRLEN', nodes, id)
  if bytes > 0 then found = found + 1 end
  if bytes == 0 or bytes > record_max or #id > id_max or bytes > bytes_left then
    refused = refused + 1
  else
    bytes_left = bytes_left - bytes
    local n = #entries
    entries[n + 1], entries[n + 2], entries[n + 3] = id, listed[i + 1], redis.call('HGET', nodes, id)
  end
end
-- Records without a deadline were not written by a node.
refused = refused + math.max(0, redis.call('HLEN', nodes) - found)

local left = {}
local ids = redis.call('HKEYS', departed)
for i = 1, math.min(#ids, departed_max) do
  local id = ids[i]
  local bytes = redis.call('HSTRLEN', departed, id)
  if #id <= id_max and bytes <= record_max and bytes <= bytes_left then
    bytes_left = bytes_left - bytes
    left[#left + 1] = id
    left[#left + 1] = redis.call('HGET', departed, id)
  end
end
return { digits(now), redis.call('GET', version) or '0', digits(refused), entries, left }
