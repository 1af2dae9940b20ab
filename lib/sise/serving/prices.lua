-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, how late in ms a tick may be, how far in ms ahead of now, JSON of
-- a row for each share: [share, price, timestamp, day_volume, place (which partition of which topic), offset there], as
-- texts, since Lua's numbers are doubles. Gives for each row 1 where its price is the latest now, else 0.
local P, keep, now, behind, ahead = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local latest = {}

for n, row in ipairs(cjson.decode(ARGV[5])) do
  local key = P .. 'price:' .. row[1]
  local known = redis.call('HMGET', key, 'timestamp', 'place', 'offset')
  local time, newest = tonumber(row[3]), tonumber(known[1] or row[3])
  -- Read again from further back, it is none that came late, and none of another session: it was here before.
  local again = known[2] == row[5] and tonumber(row[6]) < tonumber(known[3])
  -- A time that is so far away, or in a future that this tick is not of, was left by a replay.
  local left = newest - time > behind or (newest > now + ahead and time <= now + ahead)
  latest[n] = not again and (time >= newest or left) and 1 or 0
  if latest[n] == 1 then
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now, 'place', row[5],
               'offset', row[6])
    redis.call('EXPIRE', key, keep)
  end
end
return latest
