-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, how late in ms a tick may be, how far in ms ahead of now, JSON of
-- a row for each share: [share, price, timestamp, day_volume, place (which partition of which topic), offset there], as
-- texts, since Lua's numbers are doubles. Gives for each row, where its price is the latest now, what the share's open
-- signals were followed with last (follow.lua; '' if nothing), else nothing.
local P, keep, now, behind, ahead = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local followed = {}

local function hour(time) return math.floor(time / 3600000) end

for n, row in ipairs(cjson.decode(ARGV[5])) do
  local key = P .. 'price:' .. row[1]
  local known = redis.call('HMGET', key, 'timestamp', 'place', 'offset', 'written', 'followed')
  local time, newest = tonumber(row[3]), tonumber(known[1] or row[3])
  -- Read again from further back, it is none that came late, and none of another session: it was here before.
  local again = known[2] == row[5] and tonumber(row[6]) < tonumber(known[3])
  -- A time that is so far away, or in a future that this tick is not of, was left by a replay.
  local left = newest - time > behind or (newest > now + ahead and time <= now + ahead)
  followed[n] = not again and (time >= newest or left) and (known[5] or '')
  if followed[n] then
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now, 'place', row[5],
               'offset', row[6])
    if hour(now) ~= hour(known[4] or 0) then redis.call('EXPIRE', key, keep) end  -- each time it is a quarter of the work
  end
end
return followed
