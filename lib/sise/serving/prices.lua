-- Latest prices: each share's of a batch, unless a later one is there already.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, then of each share: share, price, timestamp, day_volume.
local P, keep, now = KEYS[1], ARGV[1], ARGV[2]
for i = 3, #ARGV, 4 do
  local key, timestamp = P .. 'price:' .. ARGV[i], ARGV[i + 2]
  local last = redis.call('HGET', key, 'timestamp')
  if not last or tonumber(timestamp) >= tonumber(last) then
    redis.call('HSET', key, 'price', ARGV[i + 1], 'timestamp', timestamp, 'day_volume', ARGV[i + 3], 'written', now)
    redis.call('EXPIRE', key, keep)
  end
end
