--- What each client may use: calls a minute, calls at a time, tokens and money a day.
--
--   use "client_limits" { limits = {
--     ["team-a"] = { calls_per_minute = 60, concurrent = 5, tokens_per_day = 2000000, cost_per_day = 20 },
--     ["ci-*"]   = { calls_per_minute = 10 },
--     ["*"]      = { concurrent = 2, tokens_per_day = 100000 },   -- everybody else, each for itself
--   } }
--
-- Clients are the names of the clients file; without one all calls are those of "-". The most specific entry counts,
-- and no other. A call that is refused gets 429, with what it met as the code (client_limit, daily_token_limit,
-- daily_cost_limit) and when it may come again as Retry-After. Days are UTC's.
--
-- Tokens and money are counted when a call has ended, by what providers reported; what they do not report counts for
-- nothing, and calls under way when the limit is reached are not cut off. Put this policy first.

local match = require "lib.match"

local DAY = 86400
local KNOWN = { calls_per_minute = true, concurrent = true, tokens_per_day = true, cost_per_day = true }

local function limits_of(self, name)
  return match.first(self.sorted, name, name)
end

-- The counter of the day, and seconds until the next.
local function today(what, name)
  local time = now()
  local day = time // DAY
  return ("%s:%d:%s"):format(what, day, name), (day + 1) * DAY - time
end

local function used_up(what, name, limit)
  if not limit then return end
  local key, left = today(what, name)
  local used = store.counter(key)
  if used and used >= limit then return left end
end

-- In texts. Without `clients` in init.lua callers have no names.
local function whom(name) return name == "-" and "everybody together" or name end

local function refuse_day(code, what, name, limit, left)
  return fail {
    category = "rate_limit",
    code = code,
    message = ("%s has used its %.14g %s of today; the next day begins at midnight UTC"):format(
      whom(name), limit, what),
    after = left,
    why = ("%s: %.14g %s a day"):format(name, limit, what),
  }
end

local function whole_complaint(where, own)
  for what, most in pairs { calls_per_minute = 100000, concurrent = 65535 } do
    local value = own[what]
    if value ~= nil and (math.type(value) ~= "integer" or value < 1 or value > most) then
      return ("%s.%s must be a whole number from 1 to %d"):format(where, what, most)
    end
  end
end

local function complaint(name, own)
  local where = ("limits[%q]"):format(tostring(name))
  if type(name) ~= "string" or type(own) ~= "table" then return where .. " must be a table of limits under a name" end
  for what in pairs(own) do
    if not KNOWN[what] then
      return ("%s has no %q; it takes calls_per_minute, concurrent, tokens_per_day, cost_per_day")
        :format(where, tostring(what))
    end
  end
  for _, what in ipairs { "tokens_per_day", "cost_per_day" } do
    local value = own[what]
    if value ~= nil and (type(value) ~= "number" or value <= 0 or value > 1e15) then
      return ("%s.%s must be a number above 0"):format(where, what)
    end
  end
  return whole_complaint(where, own)
end

return policy {
  name = "client_limits",
  doc = "calls, tokens and money that each client may use",

  params = {
    limits      = param { type = "any", required = true, doc = "by client: { [\"name or glob\"] = { "
                          .. "calls_per_minute =, concurrent =, tokens_per_day =, cost_per_day = } }" },
    max_wait    = param { 0.0, min = 0, max = 3600, unit = "s", doc = "longest wait for a turn; 0: refused at once" },
    max_waiting = param { 100, min = 0, max = 65535, doc = "calls of one client in line, at most" },
  },

  check = function(self)
    if type(self.limits) ~= "table" then return "limits: must be a table { [\"client\"] = { ... } }" end
    for name, own in pairs(self.limits) do
      local wrong = complaint(name, own)
      if wrong then return wrong end
    end
    self.sorted = match.sort(self.limits)
  end,

  on_request = function(self, call)
    local name = call.client or "-"
    local own = limits_of(self, name)
    if not own then return end
    local left = used_up("tokens", name, own.tokens_per_day)
    if left then return refuse_day("daily_token_limit", "tokens", name, own.tokens_per_day, left) end
    left = used_up("cost", name, own.cost_per_day)
    if left then return refuse_day("daily_cost_limit", "units of money", name, own.cost_per_day, left) end
    if not own.concurrent and not own.calls_per_minute then return end
    return hold {
      key = name,
      slots = own.concurrent,
      limit = own.calls_per_minute, per = own.calls_per_minute and 60 or nil,
      max_wait = self.max_wait, max_waiting = self.max_waiting,
      code = "client_limit",
      message = whom(name) .. " has reached its limit of calls",
      after = 1,
      why = "a turn of " .. whom(name),
    }
  end,

  on_done = function(self, call, outcome)
    local name = call.client or "-"
    local own = limits_of(self, name)
    if not own then return end
    local tokens, cost = outcome.tokens, outcome.cost
    if own.tokens_per_day and tokens and tokens.total > 0 then
      local key, left = today("tokens", name)
      store.count(key, tokens.total, left + 3600)
    end
    if own.cost_per_day and cost and cost > 0 then
      local key, left = today("cost", name)
      store.count(key, cost, left + 3600)
    end
  end,
}
