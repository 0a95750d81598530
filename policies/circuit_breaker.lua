--- Stops asking a target that keeps failing, so that calls go elsewhere at once instead of waiting for it to fail.
--
-- closed     everything passes; `failures` in a row open it
-- open       nothing passes for `cooldown` seconds (longer, when the provider's Retry-After says so)
-- half-open  `permits` attempts at a time may try; `successes` of them close it, one failure opens it again
--
-- The state machine is the store's and shared by all workers; here is only what counts. A refused attempt costs nothing
-- and goes through on_error, where fallback_model takes over; when nobody does, the client gets 503 and Retry-After.
-- Put this policy first in the chain.

local KEY = 150      -- bytes of an alert's key: model names are as long as clients like
local LONGEST = 3600 -- seconds that a Retry-After may keep a breaker open

-- What an attempt was sent to, in the words of `by`.
local function key_of(self, call)
  return self.by == "provider" and call.target.provider or call.target.name
end

local function breaker_of(self, call)
  local key = key_of(self, call)
  return key, store.breaker(key, self.options)
end

-- Does this failure say that the target is ill? Errors that the caller or a credential caused say nothing about it, and
-- neither do those of our own making (source "parry") or our own limit on a stream's length.
local function counts(self, err)
  if err.source == "parry" or err.code == "max_stream" then return false end
  return self.counted[err.category]
end

local function opened_text(self, key, err)
  local status = err.status > 0 and ", HTTP " .. err.status or ""
  local pause = math.max(self.cooldown, math.min(err.retry_after or 0, LONGEST))
  return ("circuit breaker of %s is open after %s%s; no attempts for %g s"):format(key, err.category, status, pause)
end

local function tell(self, key, state, err)
  local open = state == "open"
  local fields = { target = key, state = state }
  if err then
    fields.category, fields.status, fields.code = err.category, err.status, err.code
  end
  log.warn("circuit breaker " .. state, fields)
  if not self.to then return end
  notify {
    key = key:sub(1, KEY),
    to = self.to,
    resolve = not open,
    text = open and opened_text(self, key, err) or ("circuit breaker of %s is closed again"):format(key),
  }
end

return policy {
  name = "circuit_breaker",
  doc = "refuse attempts at a target that keeps failing, until it has recovered",

  params = {
    failures  = param { 5, min = 1, max = 1000, doc = "failures in a row that open it" },
    cooldown  = param { 10.0, min = 0.1, max = 3600, unit = "s", doc = "how long it stays open" },
    successes = param { 3, min = 1, max = 1000, doc = "successes in half-open that close it" },
    permits   = param { 1, min = 1, max = 1000, doc = "attempts let through at a time in half-open" },
    by        = param { "target", values = { "target", "provider" },
                        doc = "one breaker per provider/model, or one for all models of a provider" },
    count     = param { { "server", "overloaded", "timeout", "network" }, type = "list", of = "category",
                        doc = "categories that count as failures; all others say nothing about the target" },
    to        = param { type = "sink", optional = true, doc = "where to tell that a breaker opened or closed" },
  },

  check = function(self)
    self.options = {
      failures = self.failures, successes = self.successes, permits = self.permits, cooldown = self.cooldown,
    }
    self.counted = {}
    for _, category in ipairs(self.count) do self.counted[category] = true end
  end,

  on_attempt = function(self, call)
    local key, breaker = breaker_of(self, call)
    local allowed, retry_in = breaker:enter()
    if allowed then return end
    return refuse {
      category = "overloaded",
      code = "circuit_open",
      message = ("%s is not asked at the moment, because it kept failing"):format(key),
      after = retry_in,
      why = ("circuit of %s is open for %.1f s more"):format(key, retry_in),
    }
  end,

  on_outcome = function(self, call, attempt)
    local err = attempt.err
    if err and not counts(self, err) then return end -- neutral: the half-open place is free again, nothing is counted
    local key, breaker = breaker_of(self, call)
    local state, changed
    if err then
      local asked = err.retry_after
      state, changed = breaker:failure(asked and { cooldown = math.min(asked, LONGEST) })
    else
      state, changed = breaker:success()
    end
    if state and changed then tell(self, key, state, err) end -- no state: the store is full
  end,
}
