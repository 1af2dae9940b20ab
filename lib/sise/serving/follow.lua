-- What a batch's ticks make of the open signals of some shares.
-- KEYS[1] prefix. ARGV: JSON of the rules' directions (rule -> long or short), JSON of a row for each share:
-- [price, timestamp (texts), ids of its open signals, its ticks [[timestamp, price], …], their session, what changed its
-- prices up to then [[ex_date, factor (null: nobody knows it)], …], the share where price is its latest (prices.lua) or
-- false, what to note there once all of them are followed]; price, timestamp and session are the newest tick's. Ticks that
-- all have one price are one tick, the newest.
local P, directions = KEYS[1], cjson.decode(ARGV[1])

local function text(number)  -- the same double when it is read again
  if number ~= number then return 'nan' end
  local brief = string.format('%.15g', number)
  return tonumber(brief) == number and brief or string.format('%.17g', number)
end

local function basis_of(session, row)  -- what takes a price of that session to the ticks' basis; nan: nobody knows
  local basis = 1
  for _, move in ipairs(row[6]) do
    if move[1] > session and move[1] <= row[5] then
      if move[2] == cjson.null then return 0 / 0 end
      basis = basis * move[2]
    end
  end
  return basis
end

local function follow(key, row)  -- false where the signal is of a later tick
  local known = redis.call('HMGET', key, 'trigger_price', 'timestamp', 'signal_type', 'best', 'worst', 'session',
                           'pnl', 'basis', 'direction')
  if not known[1] then return true end  -- its time is over
  local since = tonumber(known[2])
  if tonumber(row[2]) < since then return false end
  -- A rule that is gone leaves its signals their direction; one that is turned round turns what they came to.
  local direction = directions[known[3]] or known[9] or 'long'
  local basis = basis_of(known[6], row)
  local told = text(basis)
  local changed = {}
  local function set(field, value)
    changed[#changed + 1] = field
    changed[#changed + 1] = value
  end
  if row[7] and (known[8] or '1') ~= told then set('basis', told) end
  if basis == basis then
    local best, worst = tonumber(known[4] or 0), tonumber(known[5] or 0)
    local turned = direction ~= known[9]
    if turned then
      set('direction', direction)
      if known[9] then
        best, worst = -worst + 0, -best + 0
        if not row[7] then set('pnl', text(-tonumber(known[7]) + 0)) end
      end
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
    end
  end
  if #changed > 0 then redis.call('HSET', key, unpack(changed)) end
  return true
end

for _, row in ipairs(cjson.decode(ARGV[2])) do
  local all = true
  for _, id in ipairs(row[3]) do all = follow(P .. 'signal:' .. id, row) and all end
  if row[7] and all then redis.call('HSET', P .. 'price:' .. row[7], 'followed', row[8]) end
end
