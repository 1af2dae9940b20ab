-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, how late in ms a tick may be, JSON of a row for each share:
-- [share, price, timestamp, day_volume], as texts, since Lua's numbers are doubles.
local P, keep, now, behind = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])

for _, row in ipairs(cjson.decode(ARGV[4])) do
  local key = P .. 'price:' .. row[1]
  local last = redis.call('HGET', key, 'timestamp')
  local ahead = tonumber(last or row[3]) - tonumber(row[3])
  if ahead <= 0 or ahead > behind then  -- so far ahead only a replay of the session to come was
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now)
    redis.call('EXPIRE', key, keep)
  end
end
