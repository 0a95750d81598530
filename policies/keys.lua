--- Uses the next key of a provider when one is refused or at its limit.
--
-- For providers with several keys: `auth = bearer(secret "K1"), keys = { secret "K2", secret "K3" }`. A key that is
-- wrong, frozen or without money is retired; one that met its limit is paused until the provider's Retry-After. What is
-- known about a key holds for all calls and workers at once, so that it costs one failed attempt and not one per call.
-- The call that found out goes on with the next key, at once and free of the retry budget: it is another account.
--
-- The state is the core's (see `parry status`); here is only what an error says about a key. A provider with one key
-- keeps it, and its errors go to the next policy. Put this one before retry.

local KEY = 150       -- bytes of an alert's key
local LONGEST = 86400 -- seconds that a Retry-After may pause a key

local function alert_key(call, attempt)
  return (call.target.provider .. "/" .. attempt.key):sub(1, KEY)
end

-- "retire", "pause" or nil. Only the provider can know: what parry refused was never sent.
local function consequence(self, err)
  if err.source == "parry" then return end
  if self.retired[err.category] or self.retired[err.code] then return "retire" end
  if err.category == "rate_limit" and not self.shared_account then return "pause" end
end

-- What stays true for somebody who reads it an hour later; never a message of the provider's, which may repeat the key.
local function told(self, call, attempt, only)
  local err = attempt.err
  local said = ("key %s of %s: %s%s%s"):format(attempt.key, call.target.provider, err.category,
    err.code and ", code " .. err.code or "", err.status > 0 and ", HTTP " .. err.status or "")
  if only then return said .. "; it is the only key, so it stays in use" end
  return ("%s; it is not used for %g s, or until its secret has another value"):format(said, self.retire)
end

local function tell(self, call, attempt, only)
  local text = told(self, call, attempt, only)
  log.warn(only and "the only key is refused" or "key retired", {
    provider = call.target.provider, key = attempt.key, category = attempt.err.category, code = attempt.err.code,
  })
  if self.to then notify { key = alert_key(call, attempt), to = self.to, text = text } end
end

local function refusals_of(call, attempt) return "refused/" .. alert_key(call, attempt) end

local function retire(self, call, attempt)
  if self.refusals > 1 then
    local count = store.count(refusals_of(call, attempt), 1, self.retire)
    if count and count < self.refusals then return end
  end
  local marked = keys.retire(self.retire)
  if marked == "set" then
    tell(self, call, attempt, false)
  elseif marked == "only" then
    tell(self, call, attempt, true)
  end
end

local function pause(self, err)
  keys.pause(math.min(math.max(err.retry_after or self.pause, 0.001), LONGEST))
end

local function settle(self, call, attempt)
  if self.refusals > 1 then store.remove(refusals_of(call, attempt)) end
  if not keys.worked() then return end
  log.info("key works again", { provider = call.target.provider, key = attempt.key })
  if not self.to then return end
  notify {
    key = alert_key(call, attempt), to = self.to, resolve = true,
    text = ("key %s of %s works again"):format(attempt.key, call.target.provider),
  }
end

-- Not all in the same moment: they would meet the limit together again.
local function wait_for_one(self, err)
  local asked = err.retry_after
  if not asked or asked > (self.patience or 0) then return end
  return retry { after = asked * (1 + 0.1 * random()), why = "every key rests" }
end

return policy {
  name = "keys",
  doc = "use the next key of a provider when one is refused or at its limit",

  params = {
    retire         = param { 3600.0, min = 1, max = 2592000, unit = "s",
                             doc = "how long a refused key is not used; another value of its secret ends it" },
    pause          = param { 5.0, min = 0.001, max = 3600, unit = "s",
                             doc = "how long a key rests after a 429 without Retry-After" },
    count          = param { { "auth", "billing", "api_key_frozen", "account_deactivated" },
                             type = "list", of = "string",
                             doc = "categories or codes that say that a key is out of order" },
    refusals       = param { 1, min = 1, max = 1000, doc = "refusals in a row, no success between, that retire a key" },
    shared_account = param { false, doc = "the keys belong to one account: its limit and its balance are theirs, "
                             .. "so that another key helps against neither" },
    patience       = param { type = "number", optional = true, min = 0, max = 600, unit = "s",
                             doc = "while every key rests, wait this long at most for the first that is back" },
    to             = param { type = "sink", optional = true, doc = "where to tell that a key was retired" },
  },

  check = function(self)
    self.retired = {}
    for _, word in ipairs(self.count) do
      if word == "rate_limit" then return "count: rate_limit pauses a key; leave it out" end
      self.retired[word] = not (self.shared_account and word == "billing")
    end
  end,

  on_outcome = function(self, call, attempt)
    if not attempt.key then return end
    local err = attempt.err
    if not err then return settle(self, call, attempt) end
    local what = consequence(self, err)
    if what == "retire" then
      retire(self, call, attempt)
    elseif what == "pause" then
      pause(self, err)
    end
  end,

  on_error = function(self, call, err)
    if err.code == "no_usable_key" and err.source == "parry" then return wait_for_one(self, err) end
    local key = call.target.key
    if not key or not consequence(self, err) then return end
    return rotate { why = ("key %s: %s"):format(key, err.code or err.category) }
  end,
}
