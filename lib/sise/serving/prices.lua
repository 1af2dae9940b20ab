-- Latest prices: each share's of a batch, unless a later one is there already; and what the batch's ticks make of the
-- share's open signals.
-- KEYS[1] prefix. ARGV: seconds a price stays, now in ms, JSON of the rules' directions (rule -> long or short), JSON of a
-- row for each share: [share, price, timestamp, day_volume], as texts, and if it has open signals their ids,
-- its ticks [[timestamp, price], …], as_of and rebased_by (null: nobody knows it); how late in ms a tick may be.
local P, keep, now, behind = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[5])
local directions = cjson.decode(ARGV[3])

local function text(number)  -- the same double when it is read again
  if number ~= number then return 'nan' end
  local brief = string.format('%.15g', number)
  return tonumber(brief) == number and brief or string.format('%.17g', number)
end

local function follow(key, row)
  local known = redis.call('HMGET', key, 'trigger_price', 'timestamp', 'signal_type', 'best', 'worst', 'as_of',
                           'followed', 'basis', 'basis_as_of', 'direction')
  if not known[1] then return end  -- its time is over
  local since, newest, as_of = tonumber(known[2]), tonumber(row[3]), row[7]
  if newest < since then return end
  local basis = known[8] == 'nan' and 0 / 0 or tonumber(known[8] or 1)
  if as_of ~= (known[9] or known[6]) then  -- a later session: another basis, maybe
    basis = row[8] == cjson.null and 0 / 0 or basis * row[8]
    redis.call('HSET', key, 'basis', text(basis), 'basis_as_of', as_of)
  end
  if basis ~= basis then return end
  local best, worst = tonumber(known[4] or 0), tonumber(known[5] or 0)
  -- A rule that is gone leaves its signals their direction; one that is turned round turns what they came to.
  local direction = directions[known[3]] or known[10] or 'long'
  if direction ~= known[10] then
    if known[10] then best, worst = -worst + 0, -best + 0 end
    redis.call('HSET', key, 'direction', direction, 'best', text(best), 'worst', text(worst))
  end
  local trigger, sign = tonumber(known[1]) * basis, direction == 'short' and -1 or 1
  local function move(price) return sign * (price / trigger - 1) + 0 end
  local high, low = best, worst
  for _, tick in ipairs(row[6]) do
    if tick[1] >= since then
      local pnl = move(tick[2])
      high, low = math.max(high, pnl), math.min(low, pnl)
    end
  end
  if high > best then redis.call('HSET', key, 'best', text(high)) end
  if low < worst then redis.call('HSET', key, 'worst', text(low)) end
  if newest >= tonumber(known[7] or since) then
    redis.call('HSET', key, 'last_price', row[2], 'pnl', text(move(tonumber(row[2]))), 'followed', row[3])
  end
end

for _, row in ipairs(cjson.decode(ARGV[4])) do
  local key = P .. 'price:' .. row[1]
  local last = redis.call('HGET', key, 'timestamp')
  local ahead = tonumber(last or row[3]) - tonumber(row[3])
  if ahead <= 0 or ahead > behind then  -- so far ahead only a replay of the session to come was
    redis.call('HSET', key, 'price', row[2], 'timestamp', row[3], 'day_volume', row[4], 'written', now)
    redis.call('EXPIRE', key, keep)
  end
  for _, id in ipairs(row[5] or {}) do follow(P .. 'signal:' .. id, row) end
end
