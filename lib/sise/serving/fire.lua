-- One batch of records: decides per share and rule what fires, and writes it. All or nothing.
-- KEYS[1] prefix. ARGV: epoch of the tick topic (for records that carry none), seconds a signal stays active, length of
-- the stream, the rules as JSON (name -> [cooldown in ms, long or short]), outbox key, how late and how far ahead in ms a
-- tick may be, then the records as the detection wrote them.
-- Returns the JSON of every fired signal.
local P, epoch, ttl, keep, outbox = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[5]
local rules, behind, ahead = cjson.decode(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[7])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local fired = {}

local function cooldown(rule)  -- none for a rule that the relay's file does not name: time does not arm that again
  return rules[rule] and rules[rule][1]
end

local function text_of(raw, name)  -- a number as it was written: cjson would round it
  return string.match(raw, '"' .. name .. '":%s*(%-?[%d%.eE+-]+)')
end

-- What a signal has come to by the share's latest price, where that is of a later tick of the session: whoever fires it
-- had to catch up, and no tick may come to tell. Not by the price that a replay of the session to come has left. What the
-- ticks in between were is read again: the set ``missed`` (serving/missed.py).
local function follow(key, id, r, share, rule, price, timestamp)
  local known = redis.call('HMGET', P .. 'price:' .. share, 'price', 'timestamp', 'place')
  local fired_at = tonumber(timestamp)
  local time, to_come = tonumber(known[2] or 0), now + ahead
  if time <= fired_at or time - fired_at > 43200000 or (time > to_come and fired_at <= to_come) then return end
  local direction = rules[rule] and rules[rule][2] or 'long'
  local change = (tonumber(known[1]) / tonumber(price) - 1) * (direction == 'short' and -1 or 1) + 0
  local pnl = string.format('%.17g', change)
  redis.call('HSET', key, 'last_price', known[1], 'pnl', pnl, change > 0 and 'best' or 'worst', pnl,
             'direction', direction)
  if known[3] == (r.epoch or epoch) .. ':' .. r.partition then redis.call('SADD', P .. 'missed', id) end
end

local function fire(raw, r, share, rule, number, timestamp)
  local id = share .. ':' .. rule .. ':' .. r.session .. ':' .. number
  local price = text_of(raw, 'price')
  local indicators = string.match(raw, '"indicators":%s*(%b{})')
  local signal = {
    'id', id, 'signal_type', rule, 'country', r.country, 'market', r.market or '', 'symbol', r.symbol,
    'session', r.session, 'timestamp', timestamp, 'trigger_price', price, 'indicators', indicators,
    'rule_version', r.version, 'as_of', r.as_of, 'day_volume', text_of(raw, 'day_volume'),
    'partition', text_of(raw, 'partition'), 'offset', text_of(raw, 'offset'),
    'state_version', text_of(raw, 'state_version') or 'null',  -- a record of an earlier sise has none
    'received', text_of(raw, 'received'), 'relayed', string.format('%.0f', now),
    'label', r.label or ''}
  local numeric = {timestamp = 1, trigger_price = 1, indicators = 1, day_volume = 1, partition = 1, offset = 1,
                   state_version = 1, received = 1, relayed = 1}
  local parts = {}
  for i = 1, #signal, 2 do
    local value = numeric[signal[i]] and signal[i + 1] or cjson.encode(signal[i + 1])
    parts[#parts + 1] = '"' .. signal[i] .. '":' .. value
  end
  local json = '{' .. table.concat(parts, ',') .. '}'
  local key = P .. 'signal:' .. id
  redis.call('HSET', key, 'last_price', price, 'pnl', '0', 'best', '0', 'worst', '0', unpack(signal))
  follow(key, id, r, share, rule, price, timestamp)
  redis.call('EXPIRE', key, ttl)
  redis.call('ZADD', P .. 'signals:active', math.floor(now / 1000) + ttl, id)
  redis.call('XADD', P .. 'signals', 'MAXLEN', '~', keep, '*', 'id', id, 'signal', json)
  redis.call('HSET', outbox, id, json)
  fired[#fired + 1] = json
end

for i = 8, #ARGV do
  local raw = ARGV[i]
  local r = cjson.decode(raw)
  local share = r.country .. ':' .. r.symbol
  local key = P .. 'armed:' .. share
  local flat, state = redis.call('HGETALL', key), {}
  for j = 1, #flat, 2 do state[flat[j]] = flat[j + 1] end
  local of_topic = '@' .. (r.epoch or epoch) .. ':'
  local seen, to_here = of_topic .. r.partition, of_topic .. 'newest'
  if not (state[seen] and r.offset <= tonumber(state[seen])) then
    local relaxed, strict = {}, {}
    for _, rule in ipairs(r.relaxed) do relaxed[rule] = true end
    for _, rule in ipairs(r.strict) do strict[rule] = true end
    local timestamp = string.format('%.0f', r.timestamp)  -- whole milliseconds, which a double has exactly
    -- A tick that came late (or twice) tells nothing of now. It did not where the other lies further away than a tick may
    -- be late, or in a future that this one is not of: a replay of the session to come has left that.
    local newest, kafka = tonumber(state[to_here]), r.received + ahead
    local late = newest and r.timestamp < newest and newest - r.timestamp <= behind
                 and not (newest > kafka and r.timestamp <= kafka)
    local changed, gone = {seen, string.format('%.0f', r.offset)}, {}
    local function set(field, value)
      changed[#changed + 1] = field
      changed[#changed + 1] = value
    end
    local function arm(rule)  -- and keep until when it was: a tick of before that comes late is of what has fired
      local told, wait = string.match(state['#' .. rule] or '', '^.-|%d+') or r.session .. '|0', cooldown(rule)
      local left = wait and math.min(r.timestamp, tonumber(state[rule]) + wait) or r.timestamp
      set('#' .. rule, told .. '|' .. string.format('%.0f', left))
      gone[#gone + 1] = rule
    end
    if not late then
      set(to_here, timestamp)
      for field in pairs(state) do  -- a rule that this record does not show relaxed is armed again
        local first = string.sub(field, 1, 1)
        if first ~= '@' and first ~= '#' and not relaxed[field] then arm(field) end
      end
    end
    for _, rule in ipairs(r.relaxed) do
      local last = tonumber(state[rule])
      local wait = cooldown(rule)
      local past = last and (late and r.timestamp - last or math.abs(r.timestamp - last))
      if last and wait and past > wait then last = nil end
      if last then
        if r.timestamp > last then set(rule, timestamp) end
      else
        local session, count, at = string.match(state['#' .. rule] or '', '^(.-)|(%d+)|?(.*)$')
        at = tonumber(at or '') or (session == r.session and newest)
        local told = late and at and r.timestamp <= at
        if strict[rule] and not told then
          local number = session == r.session and count + 1 or 1
          set(rule, late and string.format('%.0f', newest) or timestamp)  -- disarmed as of now, not of then
          set('#' .. rule, r.session .. '|' .. number .. '|' .. timestamp)
          fire(raw, r, share, rule, number, timestamp)
        elseif state[rule] then
          arm(rule)
        end
      end
    end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    redis.call('HSET', key, unpack(changed))
    redis.call('EXPIRE', key, 2592000)
  end
end
redis.call('ZREMRANGEBYSCORE', P .. 'signals:active', '-inf', '(' .. math.floor(now / 1000))
return fired
