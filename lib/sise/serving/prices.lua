-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, JSON of [share, price, timestamp, day_volume] each, as texts.
local P, keep, now = KEYS[1], ARGV[1], ARGV[2]
for _, row in ipairs(cjson.decode(ARGV[3])) do
  local key = P .. 'price:' .. row[1]
  local last = redis.call('HGET', key, 'timestamp')
  if not last or tonumber(row[3]) >= tonumber(last) then
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now)
    redis.call('EXPIRE', key, keep)
  end
end
