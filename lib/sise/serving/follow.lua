-- What a batch's ticks make of the open signals of some shares.
-- KEYS[1] prefix. ARGV: JSON of the rules' directions (rule -> long or short), JSON of a row for each share:
-- [price, timestamp (texts), ids of its open signals, its ticks [[timestamp, price], …], as_of, rebased_by (null:
-- nobody knows it), whether price is the share's latest (prices.lua)]; price and timestamp are the newest tick's. Ticks
-- that all have one price are one tick, the newest.
local P, directions = KEYS[1], cjson.decode(ARGV[1])

local function text(number)  -- the same double when it is read again
  if number ~= number then return 'nan' end
  local brief = string.format('%.15g', number)
  return tonumber(brief) == number and brief or string.format('%.17g', number)
end

local function follow(key, row)
  local known = redis.call('HMGET', key, 'trigger_price', 'timestamp', 'signal_type', 'best', 'worst', 'as_of',
                           'last_price', 'basis', 'basis_as_of', 'direction')
  if not known[1] then return end  -- its time is over
  local since, newest, as_of = tonumber(known[2]), tonumber(row[2]), row[5]
  if newest < since then return end
  -- A rule that is gone leaves its signals their direction; one that is turned round turns what they came to.
  local direction = directions[known[3]] or known[10] or 'long'
  if row[7] and #row[4] == 1 and known[7] == row[1] and known[8] ~= 'nan' and (known[9] or known[6]) == as_of
     and known[10] == direction then  -- it stays where it was, which there is no need to work out
    redis.call('HSET', key, 'followed', row[2])
    return
  end
  local basis = known[8] == 'nan' and 0 / 0 or tonumber(known[8] or 1)
  if as_of ~= (known[9] or known[6]) then  -- a later session: another basis, maybe
    basis = row[6] == cjson.null and 0 / 0 or basis * row[6]
    redis.call('HSET', key, 'basis', text(basis), 'basis_as_of', as_of)
  end
  if basis ~= basis then return end
  local best, worst = tonumber(known[4] or 0), tonumber(known[5] or 0)
  local changed = {}
  local function set(field, value)
    changed[#changed + 1] = field
    changed[#changed + 1] = value
  end
  local turned = direction ~= known[10]
  if turned then
    if known[10] then best, worst = -worst + 0, -best + 0 end
    set('direction', direction)
  end
  local trigger, sign = tonumber(known[1]) * basis, direction == 'short' and -1 or 1
  local high, low, pnl = best, worst, nil
  for _, tick in ipairs(row[4]) do
    if tick[1] >= since then
      pnl = sign * (tick[2] / trigger - 1) + 0
      if pnl > high then high = pnl end
      if pnl < low then low = pnl end
    end
  end
  if turned or high > best then set('best', text(high)) end
  if turned or low < worst then set('worst', text(low)) end
  if row[7] then
    set('last_price', row[1])
    set('pnl', text(pnl))
    set('followed', row[2])
  end
  if #changed > 0 then redis.call('HSET', key, unpack(changed)) end
end

for _, row in ipairs(cjson.decode(ARGV[2])) do
  for _, id in ipairs(row[3]) do follow(P .. 'signal:' .. id, row) end
end
