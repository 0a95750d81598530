--- Tries again, at the same target, when the failure is likely to pass.
--
-- What may be retried at all is not decided here: the dialect says `retryable`, and the core keeps what the server
-- asked for (Retry-After, x-should-retry), the deadline, the caps per call, the retry budget and what cannot be
-- repeated. When the core cannot carry out a retry it asks the next policy, so put fallback_model after this one.

local backoff = require "lib.backoff"
local category = require "lib.category"

local retry = retry -- on_error is the path that every failure takes: a local costs a third of a global

local SEEN = 100       -- errors that the adaptive wait looks back at
local TELL_EVERY = 60  -- seconds between two lines about one used-up quota

-- What a retry takes from the quota, what a call that needed none gives back: the figures of AWS's SDKs of 2026.
local COSTS = { transient = 14, throttled = 5, success = 1, reserve = 0 }
local IS_THROTTLED = { rate_limit = true, overloaded = true }

local JITTERS = { full = backoff.full_jitter, equal = backoff.equal_jitter, none = backoff.exponential }

-- How much longer waits are while this provider keeps failing.
local function heat(self, call)
  if self.adaptive == 0 then return 1 end
  local errors = store.window("errors:" .. call.target.provider, self.recent)
  return 1 + self.adaptive * (errors:count() or 0)
end

-- The waits for this error: as the parameters say, or with the first wait of its status or category.
local function shape(self, call, err)
  local special = self.base_by_status[err.status] or self.base_by_category[err.category]
  local factor = heat(self, call)
  if not special and factor == 1 then return self end
  local base = (special or self.base) * factor
  return { base = base, cap = math.max(self.cap, special or 0) }
end

local function own_wait(self, call, err, n)
  local jitter = JITTERS[self.jitter]
  if self.as_is and jitter then return jitter(self.as_is, n) end
  local waits = shape(self, call, err)
  if jitter then return jitter(waits, n) end
  local name = self.name .. ".wait" -- of this instance; survives a reload
  local wait = backoff.decorrelated_jitter(waits, n > 1 and call.vars[name] or nil)
  call.vars[name] = wait
  return wait
end

-- `listed`: a set, or false when nothing is.
local function is_listed(listed, err)
  return listed and (listed[err.category] or listed[err.code] or listed[tostring(err.status)])
end

local function was_slow(self, call)
  local last = call.ledger[#call.ledger]
  return last.ended and last.ended - last.started > self.slow
end

-- What `never`, `slow` and `patience` leave to the next policy.
local function is_declined(self, call, err)
  return is_listed(self.listed, err) or self.slow and was_slow(self, call)
         or self.patience and (err.retry_after or 0) > self.patience
end

-- A retry is paid from the provider's quota; one that is used up refuses and never waits. Calls that go well fill it
-- again. A wait past the deadline costs nothing: the core refuses it, and says so.
local function can_pay(self, call, err, wait)
  if wait >= call.deadline_left then return true end
  local provider, costs = call.target.provider, self.costs
  local cost = IS_THROTTLED[err.category] and costs.throttled or costs.transient
  if store.take("quota:" .. provider, cost, self.quota, self.quota * costs.reserve) == false then
    if store.add("quota-told:" .. provider, true, TELL_EVERY) then
      log.warn("retry quota is used up", { provider = provider, quota = self.quota })
    end
    return false
  end
  call.vars[self.paid_name] = cost
  return true
end

local function base_complaint(self)
  if type(self.base_by_status) ~= "table" then
    return ("base_by_status must be a table { [429] = 5, ... }, got %s"):format(tostring(self.base_by_status))
  end
  for status, base in pairs(self.base_by_status) do
    if type(status) == "string" then
      return ("base_by_status: its keys are HTTP statuses as numbers, [429] = 5, got the text \"%s\""):format(status)
    end
    if math.type(status) ~= "integer" or status < 400 or status > 599 then
      return ("base_by_status: its keys are HTTP statuses from 400 to 599, got %s"):format(tostring(status))
    end
    if type(base) ~= "number" or base < 0 or base > 600 then
      return ("base_by_status[%d] must be 0..600 s"):format(status)
    end
  end
  for name, base in pairs(self.base_by_category) do
    local wrong = category.complaint(name)
    if wrong then return "base_by_category: " .. wrong end
    if base < 0 or base > 600 then return ("base_by_category.%s must be 0..600 s"):format(name) end
  end
end

local function read_costs(given)
  local costs = {}
  for name, value in pairs(COSTS) do costs[name] = value end
  for name, value in pairs(given) do
    if not COSTS[name] then
      return nil, ("quota_costs: no field %q; it takes transient, throttled, success, reserve"):format(name)
    end
    if value < 0 or value > (name == "reserve" and 1 or 1e6) then
      return nil, ("quota_costs.%s must be 0..%s, got %g"):format(name, name == "reserve" and "1" or "1000000", value)
    end
    costs[name] = value
  end
  return costs
end

local function is_empty(map)
  local empty = true
  for _ in pairs(map) do empty = false end
  return empty
end

return policy {
  name = "retry",
  doc = "try again, at the same target, when the failure is likely to pass",

  params = {
    max_attempts   = param { 4, min = 1, max = 16, doc = "attempts per target, the first included" },
    base           = param { 0.5, min = 0, max = 600, unit = "s", doc = "first wait; doubled with each attempt" },
    cap            = param { 30, min = 0, max = 3600, unit = "s", doc = "longest wait of our own" },
    jitter         = param { "full", values = { "full", "equal", "decorrelated", "none" },
                             doc = "how waits are spread; see lib/backoff.lua" },
    base_by_status = param { {}, type = "any", doc = "other first waits, by HTTP status: { [429] = 5, [503] = 2 }" },
    base_by_category = param { {}, type = "map", of = "number",
                               doc = "the same by category, where the status is not listed: { rate_limit = 5 }" },
    adaptive       = param { 0.0, min = 0, max = 10, doc = "waits grow by this share for each error seen lately at the "
                             .. "provider: 0.2 doubles them after five" },
    adaptive_window = param { 300.0, min = 1, max = 86400, unit = "s", doc = "how far \"lately\" goes back" },
    quota          = param { type = "number", optional = true, min = 1, max = 1e6, doc = "tokens for retries at a "
                             .. "provider: a retry takes some, a call that goes well gives back" },
    quota_costs    = param { {}, type = "map", of = "number", doc = "tokens that a retry takes by kind of failure, and "
                             .. "that a success gives; reserve: the share that stays: { transient = 14, "
                             .. "throttled = 5, success = 1, reserve = 0 }" },
    patience       = param { type = "number", optional = true, min = 0, unit = "s",
                             doc = "when the server asks for a longer wait than this, leave it to the next policy" },
    spread         = param { 0.0, min = 0, max = 1, doc = "come back up to this share later than the server asked, "
                             .. "so that calls that were told the same time do not come back together" },
    slow           = param { type = "number", optional = true, min = 0, unit = "s",
                             doc = "an attempt that took longer than this is left to the next policy" },
    never          = param { {}, type = "list", of = "string",
                             doc = "categories, codes or statuses left to the next policy although they may pass" },
  },

  check = function(self)
    local wrong = base_complaint(self)
    if wrong then return wrong end
    self.costs, wrong = read_costs(self.quota_costs)
    if wrong then return wrong end
    self.recent = { seconds = self.adaptive_window, limit = SEEN }
    self.paid_name = self.name .. ".paid"
    self.whys = {}
    for n = 1, self.max_attempts do self.whys[n] = ("attempt %d of %d"):format(n, self.max_attempts) end
    if self.adaptive == 0 and is_empty(self.base_by_status) and is_empty(self.base_by_category) then
      self.as_is = { base = self.base, cap = self.cap } -- whatever the error is
    end
    self.listed = false
    for _, word in ipairs(self.never) do
      self.listed = self.listed or {}
      self.listed[word] = true
    end
    self.picky = (self.listed or self.slow or self.patience) and true or false
  end,

  when = { retryable = true, source = "provider" }, -- the core skips us in C for everything else

  only_with = { on_outcome = "quota" },

  on_outcome = function(self, call, attempt)
    if attempt.err then return end
    local paid = call.vars[self.paid_name]
    if paid then call.vars[self.paid_name] = nil end
    store.give("quota:" .. call.target.provider, paid or self.costs.success)
  end,

  on_error = function(self, call, err)
    if self.adaptive > 0 then
      store.window("errors:" .. call.target.provider, self.recent):add()
    end
    local n = call.target.attempts
    if n >= self.max_attempts or self.picky and is_declined(self, call, err) then return end
    local wait, asked = own_wait(self, call, err, n), err.retry_after
    if asked and asked > 0 then
      wait = math.max(wait, asked * (1 + self.spread * random()))
    end
    if self.quota and not can_pay(self, call, err, wait) then return end
    return retry { after = wait, why = self.whys[n] }
  end,
}
