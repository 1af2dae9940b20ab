-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, how late in ms a tick may be, JSON of a row for each share:
-- [share, price, timestamp, day_volume], as texts, since Lua's numbers are doubles. Gives for each row 1 where its price
-- is the latest now, else 0.
local P, keep, now, behind = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local latest = {}

for n, row in ipairs(cjson.decode(ARGV[4])) do
  local key = P .. 'price:' .. row[1]
  local last = redis.call('HGET', key, 'timestamp')
  local ahead = tonumber(last or row[3]) - tonumber(row[3])
  latest[n] = (ahead <= 0 or ahead > behind) and 1 or 0  -- so far ahead only a replay of the session to come was
  if latest[n] == 1 then
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now)
    redis.call('EXPIRE', key, keep)
  end
end
return latest
