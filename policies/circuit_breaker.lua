--- Stops asking a target that keeps failing, so that calls go elsewhere at once instead of waiting for it to fail.
--
-- closed     everything passes; `failures` in a row open it, or a share (`ratio`) of failed outcomes in the last
--            `window` seconds, or a share (`slow_ratio`) of slow ones
-- open       nothing passes for `cooldown` seconds (longer, when the provider's Retry-After says so)
-- half-open  `permits` attempts at a time may try; `successes` of them close it, one failure opens it again
--
-- The state machine is the store's and shared by all workers; here is only what counts. A refused attempt costs nothing
-- and goes through on_error, where fallback_model takes over; when nobody does, `when_all_open` says what happens: by
-- default the client gets 503 and Retry-After. Put this policy first in the chain.

local last_resort = require "lib.last_resort"

local breaker_of = store.breaker -- on_attempt and on_outcome run with every attempt: a local costs a third of a global

local CODE = "circuit_open"
local KEY = 150      -- bytes of an alert's key: model names are as long as clients like
local LONGEST = 3600 -- seconds that a Retry-After may keep a breaker open
local FIRST_ROUND = 1 -- seconds until a waiting call asks again, when others are trying the target

-- What `by` makes of a target.
local function key_of_name(self, target)
  return self.by == "provider" and target:match("^[^/]*") or target
end

-- What an attempt was sent to, in the words of `by`.
local function key_of(self, call)
  local target = call.target
  return self.by == "provider" and target.provider or target.name
end

-- Does this failure say that the target is ill? Errors that the caller or a credential caused say nothing about it, and
-- neither do those of our own making (source "parry") or our own limit on a stream's length. One exception: a target
-- that had the whole deadline of a call for itself and did not answer. Otherwise a deadline below the `first_byte`
-- timeout would hide it for ever.
local function counts(self, call, err)
  if err.source == "parry" then
    return err.code == "deadline" and err.sent and #call.ledger == 1 and self.counted.timeout
  end
  return err.code ~= "max_stream" and self.counted[err.category]
end

-- What comes after the first byte takes as long as the answer is long, which says nothing about the target.
local function was_slow(self, attempt)
  return self.slow and (attempt.first_byte or 0) > self.slow
end

local function opened_text(key, err, retry_in)
  local reason = "slow answers"
  if err then reason = err.category .. (err.status > 0 and ", HTTP " .. err.status or "") end
  return ("circuit breaker of %s is open after %s; no attempts for %.0f s"):format(key, reason, math.ceil(retry_in))
end

local function tell(self, key, breaker, state, err)
  local open = state == "open"
  local fields = { target = key, state = state }
  if err then
    fields.category, fields.status, fields.code = err.category, err.status, err.code
  end
  log.warn("circuit breaker " .. state, fields)
  if not self.to then return end
  local _, retry_in = breaker:state()
  notify {
    key = key:sub(1, KEY),
    to = self.to,
    resolve = not open,
    text = open and opened_text(key, err, retry_in) or ("circuit breaker of %s is closed again"):format(key),
  }
end

-- ---- when nobody took the call ------------------------------------------------------------------------------------

-- The target that can be asked again soonest, and in how many seconds.
local function soonest(self, targets)
  local best, least
  for _, target in ipairs(targets) do
    local state, wait = breaker_of(key_of_name(self, target), self.options):state()
    if state == "half_open" then wait = FIRST_ROUND end
    if state and (not least or wait < least) then
      best, least = target, wait
    end
  end
  return best, least or 0
end

-- In half-open only some get through, and the others come back: sooner at first, then less often, and not all at once.
local function wait_for(self, call, target, wait, since)
  local waited = now() - since
  local left = self.max_wait - waited
  if wait > left then return end
  local after = math.max(wait, FIRST_ROUND * 1.4 ^ (#call.ledger - 2)) -- eleven rounds fill more than a minute
  after = math.min(after * (1 + 0.1 * random()), left)
  return last_resort.go(call, target, after, ("all circuits are open; waited %.1f s so far"):format(waited))
end

local function nobody_took_it(self, call, err)
  local targets, since = last_resort.refused(call, CODE)
  if #targets == 0 then return end
  if self.when_all_open == "try_anyway" then
    call.vars[self.anyway] = true
    return last_resort.go(call, targets[1], 0, "all circuits are open; trying anyway")
  end
  local target, wait = soonest(self, targets)
  if self.when_all_open == "wait" then
    local verdict = wait_for(self, call, target, wait, since)
    if verdict then return verdict end
  end
  if #targets > 1 and err.code == CODE then
    return fail {
      category = "overloaded", code = CODE, after = math.max(wait, 1),
      message = "none of the targets of this call is asked at the moment, because they kept failing",
      why = "all circuits are open; the first to recover is " .. target,
    }
  end
end

local function refusal(self, key, retry_in)
  return refuse {
    category = "overloaded",
    code = CODE,
    message = ("%s is not asked at the moment, because it kept failing"):format(key),
    after = self.when_all_open ~= "try_anyway" and retry_in or nil, -- a time would have to be waited for
    why = ("circuit of %s is open for %.1f s more"):format(key, retry_in),
  }
end

local function set_of(list)
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

return policy {
  name = "circuit_breaker",
  doc = "refuse attempts at a target that keeps failing, until it has recovered",

  params = {
    failures  = param { type = "integer", optional = true, min = 1, max = 1000,
                        doc = "failures in a row that open it; 5, or no such rule when ratio or slow_ratio is given" },
    ratio     = param { type = "number", optional = true, min = 0.001, max = 1,
                        doc = "open when this share of the outcomes in the window failed" },
    slow      = param { type = "number", optional = true, min = 0.01, max = 3600, unit = "s",
                        doc = "an answer whose first byte takes longer is slow" },
    slow_ratio = param { type = "number", optional = true, min = 0.001, max = 1,
                         doc = "open when this share of the outcomes in the window was slow" },
    window    = param { 60.0, min = 1, max = 3600, unit = "s", doc = "of ratio and slow_ratio" },
    min_calls = param { 20, min = 1, max = 100000, doc = "outcomes in the window below which they say nothing" },
    cooldown  = param { 10.0, min = 0.1, max = 3600, unit = "s", doc = "how long it stays open" },
    cooldown_max = param { type = "number", optional = true, min = 0.1, max = 86400, unit = "s",
                           doc = "lets the cooldown grow when it opens again and again: once, twice, ... up to this" },
    successes = param { 3, min = 1, max = 1000, doc = "successes in half-open that close it" },
    permits   = param { 1, min = 1, max = 1000, doc = "attempts let through at a time in half-open" },
    probe_limit = param { 60.0, min = 1, max = 3600, unit = "s",
                          doc = "in half-open, an attempt without outcome for this long gives its place to another" },
    by        = param { "target", values = { "target", "provider" },
                        doc = "one breaker per provider/model, or one for all models of a provider" },
    count     = param { { "server", "overloaded", "timeout", "network" }, type = "list", of = "category",
                        doc = "categories that count as failures; all others say nothing about the target" },
    when_all_open = param { "fail", values = { "fail", "try_anyway", "wait" },
                            doc = "what to do with a call that no other policy of the chain found another target for" },
    max_wait  = param { 30.0, min = 0.1, max = 600, unit = "s", doc = "longest wait with when_all_open = \"wait\"" },
    stopped   = param { {}, type = "list", of = "string",
                        doc = "targets or providers that are not asked at all, by hand: \"p\", \"p/model\"" },
    exempt    = param { {}, type = "list", of = "string", doc = "targets or providers that are never stopped" },
    to        = param { type = "sink", optional = true, doc = "where to tell that a breaker opened or closed" },
  },

  check = function(self)
    if (self.slow == nil) ~= (self.slow_ratio == nil) then
      return "slow and slow_ratio go together: what is slow, and which share of it is too much"
    end
    if self.cooldown_max and self.cooldown_max < self.cooldown then
      return ("cooldown_max must be at least cooldown (%g s), got %g"):format(self.cooldown, self.cooldown_max)
    end
    local ratios = self.ratio or self.slow_ratio
    self.options = {
      failures = self.failures or not ratios and 5 or nil, successes = self.successes, permits = self.permits,
      cooldown = self.cooldown, cooldown_most = self.cooldown_max, half_open_limit = self.probe_limit,
      ratio = self.ratio, slow_ratio = self.slow_ratio,
      window = ratios and self.window or nil, min_calls = ratios and self.min_calls or nil,
    }
    self.counted = set_of(self.count)
    self.by_hand = #self.stopped + #self.exempt > 0
                   and { stopped = set_of(self.stopped), exempt = set_of(self.exempt) }
    self.anyway = self.name .. ".anyway" -- in call.vars, of this instance
  end,

  on_attempt = function(self, call)
    local key = key_of(self, call)
    if self.by_hand then
      local hand, target = self.by_hand, call.target
      if hand.exempt[target.name] or hand.exempt[target.provider] then return end
      if hand.stopped[target.name] or hand.stopped[target.provider] then
        return refuse {
          category = "overloaded", code = "stopped", why = "stopped by hand",
          message = target.name .. " is not asked at the moment",
        }
      end
    end
    local allowed, retry_in = breaker_of(key, self.options):enter()
    if allowed or (self.when_all_open == "try_anyway" and call.vars[self.anyway]) then return end
    return refusal(self, key, retry_in)
  end,

  on_outcome = function(self, call, attempt)
    local err = attempt.err
    if err and not counts(self, call, err) then return end -- neutral: the half-open place is free again
    local key = key_of(self, call)
    local breaker = breaker_of(key, self.options)
    local state, changed
    if err then
      local asked = err.retry_after
      state, changed = breaker:failure(asked and { cooldown = math.min(asked, LONGEST) })
    elseif was_slow(self, attempt) then
      state, changed = breaker:success { slow = true }
    else
      state, changed = breaker:success()
    end
    if state and changed then tell(self, key, breaker, state, err) end -- no state: the store is full
  end,

  when = { fallback = true, last = true }, -- nobody else found another target

  on_error = function(self, call, err)
    if self.when_all_open == "fail" and err.code ~= CODE then return end
    return nobody_took_it(self, call, err)
  end,
}
