--- Tries again, at the same target, when the failure is likely to pass.
--
-- What may be retried at all is not decided here: the dialect says `retryable`, and the core keeps what the server
-- asked for (Retry-After, x-should-retry), the deadline, the caps per call, the retry budget and what cannot be
-- repeated. When the core cannot carry out a retry it asks the next policy, so put fallback_model after this one.

local backoff = require "lib.backoff"

local JITTERS = { full = backoff.full_jitter, equal = backoff.equal_jitter, none = backoff.exponential }

-- The waits for this error: as the parameters say, or with the first wait of its status.
local function shape(self, err)
  local base = self.base_by_status[err.status]
  return base and { base = base, cap = math.max(self.cap, base) } or self
end

local function own_wait(self, call, err)
  local waits, n = shape(self, err), call.target.attempts
  if self.jitter ~= "decorrelated" then
    return JITTERS[self.jitter](waits, n)
  end
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
  if not self.slow then return false end
  local last = call.ledger[#call.ledger]
  return last.ended and last.ended - last.started > self.slow
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
    for status, base in pairs(self.base_by_status) do
      if math.type(status) ~= "integer" or status < 400 or status > 599 then
        return ("base_by_status: its keys are HTTP statuses from 400 to 599, got %s"):format(tostring(status))
      end
      if type(base) ~= "number" or base < 0 or base > 600 then
        return ("base_by_status[%d] must be 0..600 s"):format(status)
      end
    end
    self.of_all = (" of %d"):format(self.max_attempts)
    self.listed = false
    for _, word in ipairs(self.never) do
      self.listed = self.listed or {}
      self.listed[word] = true
    end
  end,

  when = { retryable = true }, -- the core skips us in C for everything else

  on_error = function(self, call, err)
    local n = call.target.attempts
    if err.source == "parry" or n >= self.max_attempts then return end -- next policy
    if is_listed(self.listed, err) or was_slow(self, call) then return end
    local asked = err.retry_after or 0
    if self.patience and asked > self.patience then return end
    local wait = own_wait(self, call, err)
    if asked > 0 then
      wait = math.max(wait, asked * (1 + self.spread * random()))
    end
    return retry { after = wait, why = "attempt " .. n .. self.of_all }
  end,
}
