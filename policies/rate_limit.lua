--- Keeps below a provider's rate limit, so that it has no reason to say 429.
--
--   use "rate_limit" { limit = 5, per = 60 }                  at most 5 in any 60 seconds (a sliding window)
--   use "rate_limit" { rate = 10, burst = 20 }                10 a second, 20 at once after a pause (a token bucket)
--   use "rate_limit" { rate = 3000, burst = 180000, cost = "tokens" }   180,000 tokens a minute
--
-- Attempts wait in line, first come first served over all workers, at most `max_wait` and behind at most `max_waiting`
-- others. Whoever cannot be in time is refused at once and goes on to fallback_model; if nobody takes the call, the
-- client gets 429 with the time of the next place as Retry-After. With max_wait = 0 nobody waits.
--
-- An attempt counts from the moment it is sent, until `per` has gone by, whatever became of it; one that was not sent
-- counts for nothing. When the provider says 429 all the same (somebody else uses the account, too), nobody passes
-- until its Retry-After is over, and a bucket begins empty. What it says in x-ratelimit-remaining-* and
-- anthropic-ratelimit-* is kept to.
--
-- Put it after circuit_breaker, so that nobody takes a place for a target that is not asked, and before retry.

local limits = require "lib.limits"

local function key_of(self, call)
  local group = self.sorted and limits.group(self.sorted, call.target.name)
  if group then return "group:" .. group end
  return limits.key(self.by, call)
end

-- Tokens that a call will cost, as far as one can tell before: four bytes each, and all that it may answer.
local function estimate(self, call)
  local answer = call:field("max_tokens") or call:field("max_completion_tokens") or call:field("max_output_tokens")
  if math.type(answer) ~= "integer" or answer < 0 or answer > 1e7 then answer = self.answer end
  return call.body_size // 4 + answer + 1
end

local function settle(self, key, call, attempt)
  local name = self.name .. ".cost" -- of this instance
  local paid = call.vars[name]
  call.vars[name] = nil
  if paid and attempt.tokens then queue.spend(key, attempt.tokens.total - paid) end
end

return policy {
  name = "rate_limit",
  doc = "keep below a rate: attempts wait for their turn, or are refused with the time of the next",

  params = {
    limit       = param { type = "integer", optional = true, min = 1, max = 100000, doc = "calls in any `per`" },
    per         = param { 60.0, min = 0.01, max = 86400, unit = "s", doc = "length of the window" },
    rate        = param { type = "number", optional = true, min = 0.0001, max = 1e9,
                          doc = "calls, or tokens, a second" },
    burst       = param { type = "number", optional = true, min = 1, max = 1e12,
                          doc = "how many at once after a pause; what comes in a second when not said" },
    cost        = param { "calls", values = { "calls", "tokens" }, doc = "what `rate` and `burst` count" },
    answer      = param { 500, min = 0, max = 1000000, doc = "tokens of an answer whose request says no maximum" },
    by          = param { "target", values = limits.BY, doc = "what has a limit of its own" },
    groups      = param { {}, type = "any", doc = "targets that share one account and one limit: "
                          .. "{ [\"openai-org\"] = { \"openai/*\", \"azure/gpt-*\" } }" },
    max_wait    = param { 30.0, min = 0, max = 3600, unit = "s", doc = "longest wait for a turn; 0: none" },
    max_waiting = param { 1000, min = 0, max = 65535, doc = "others in line, at most" },
    margin      = param { 0.05, min = 0, max = 60, unit = "s",
                          doc = "added to `per`: requests do not all travel equally fast" },
    learn       = param { true, doc = "keep to what the provider's x-ratelimit headers say" },
    pause       = param { 5.0, min = 0, max = 3600, unit = "s", doc = "pause after a 429 without a Retry-After" },
  },

  check = function(self)
    if not self.limit and not self.rate then return "give a limit (and per), or a rate (and burst)" end
    if self.burst and not self.rate then return "burst goes with rate" end
    if self.cost == "tokens" and not self.rate then return "cost = \"tokens\" goes with rate and burst" end
    local sorted, wrong = limits.groups(self.groups)
    if wrong then return wrong end
    self.sorted = #sorted > 0 and sorted
    self.window = self.limit and self.per + self.margin or nil
    self.bucket = self.rate and (self.burst or math.max(self.rate, 1)) or nil
    self.unit = self.cost == "tokens" and "tokens" or "requests"
  end,

  on_attempt = function(self, call)
    local key = key_of(self, call)
    if not key then return end
    local cost
    if self.cost == "tokens" then
      cost = estimate(self, call)
      call.vars[self.name .. ".cost"] = cost
    end
    return hold {
      key = key,
      limit = self.limit, per = self.window,
      rate = self.rate, burst = self.bucket, cost = cost,
      max_wait = self.max_wait, max_waiting = self.max_waiting,
      code = "rate_limited",
      message = "too many requests for " .. key .. " at the moment",
      why = "a turn at " .. key,
    }
  end,

  on_outcome = function(self, call, attempt)
    local key = key_of(self, call)
    if not key then return end
    if self.cost == "tokens" then settle(self, key, call, attempt) end
    local err = attempt.err
    if err and err.category == "rate_limit" and err.source == "provider" then
      queue.pause(key, math.min(err.retry_after or self.pause, 86400))
    end
    if not self.learn then return end
    local remaining, reset = limits.said(attempt, self.unit)
    if remaining then queue.allow(key, { remaining = remaining, reset = reset }) end
  end,
}
