-- DEREGISTER: leaves only if the id is still ours, and leaves word of how.
-- ARGV: channel, id, nonce, reason as a JSON string, addr, record bytes max, listed ms, departures max.
-- Returns {status, now}: status `ok`, or `gone` if somebody else or nobody holds the id.
local channel, id = ARGV[1], ARGV[2]
local bytes_max, listed_ms, kept_max = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local generation, nonce = holder(nodes, id, bytes_max)
if nonce ~= ARGV[3] then return { 'gone', digits(now) } end
redis.call('HDEL', nodes, id)
redis.call('ZREM', deadlines, id)
announce(channel, 'deregistered', id, generation)
-- Full memory must not keep a node in the registry: the word of how it left is worth less.
redis.pcall('HSET', departed, id, '{"generation":' .. digits(generation) .. ',"reason":' .. ARGV[4]
  .. ',"at_ms":' .. digits(now) .. ',"addr":"' .. ARGV[5] .. '"}')

local all, kept = redis.call('HGETALL', departed), {}
for i = 1, #all, 2 do
  local ok, left = pcall(cjson.decode, all[i + 1])
  if ok and type(left) == 'table' and type(left.at_ms) == 'number' and left.at_ms > now - listed_ms then
    kept[#kept + 1] = { all[i], left.at_ms }
  else
    redis.call('HDEL', departed, all[i])
  end
end
table.sort(kept, function(a, b) return a[2] > b[2] end)
for i = kept_max + 1, #kept do redis.call('HDEL', departed, kept[i][1]) end
return { 'ok', digits(now) }
