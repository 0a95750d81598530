--- What policies that limit have in common: whom a limit is for, and what providers say about theirs.
--
--   local limits = require "lib.limits"
--   local key = limits.key(self.by, call)                            -- nil: this call has no such thing
--   local remaining, reset = limits.said(attempt, "requests")       -- from x-ratelimit-* and anthropic-ratelimit-*

local match = require "lib.match"

local limits = {}

local HEAD, TAIL = 110, 70 -- bytes that are kept of a key that is too long for a queue

--- What `by` may be. "key": the provider's key that the attempt is made with.
limits.BY = { "target", "provider", "model", "key", "client", "session" }

--- Models and sessions are as long as clients like; a key of hold{} is not. Of what is too long both ends count.
function limits.fit(text)
  if #text <= HEAD + TAIL then return text end
  return text:sub(1, HEAD) .. "~" .. text:sub(-TAIL)
end

--- A conversation is its client's own, whatever others call theirs. A text of the body may hold NUL, a key may not.
function limits.session(call, session)
  if not session or session == "" then return end
  if session:find("\0", 1, true) then session = digest(session) end
  return limits.fit((call.client or "") .. ":" .. session)
end

--- Whom the limit of this call is for. Calls without a client's name share one; those without a session have none.
function limits.key(by, call)
  if by == "target" then return limits.fit(call.target.name) end
  if by == "provider" then return call.target.provider end
  if by == "model" then return limits.fit(call.target.model or "-") end
  if by == "key" then return call.target.provider .. " " .. (call.target.key or "-") end
  if by == "client" then return call.client or "-" end
  return limits.session(call, call.session)
end

--- Groups of targets with one account: { ["openai-org"] = { "openai/*", "azure/*" } }. The result is for
--- limits.group(); or nil and what is wrong with them.
function limits.groups(groups)
  local by_glob = {}
  if type(groups) ~= "table" then return nil, "groups: must be a table { [\"name\"] = { \"provider/*\" } }" end
  for name, globs in pairs(groups) do
    if type(name) ~= "string" or type(globs) ~= "table" or #globs == 0 then
      return nil, "groups: must be { [\"name\"] = { \"provider/*\", \"provider/model\", ... } }"
    end
    for i, glob in ipairs(globs) do
      if type(glob) ~= "string" or not glob:find("/", 1, true) then
        return nil, ("groups[%q][%d] must be a target or a glob, as \"provider/*\""):format(name, i)
      end
      if by_glob[glob] then
        return nil, ("groups: %q is in %q and in %q"):format(glob, by_glob[glob], name)
      end
      by_glob[glob] = name
    end
  end
  return match.sort(by_glob)
end

--- The group of a target, or nil.
function limits.group(sorted, target)
  return match.first(sorted, target, target)
end

-- Days from 1970-01-01 to a day of the Gregorian calendar (Hinnant, chrono-compatible low-level date algorithms).
local function days(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local of_era = year - era * 400
  local of_year = (153 * (month + (month > 2 and -3 or 9)) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

local UNITS = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

--- Seconds from now that a provider means: "6m0s", "20ms" (OpenAI), "2026-01-27T12:00:00Z" (Anthropic), "1.5", or a
--- Unix time in seconds or milliseconds. nil: none of these.
function limits.seconds(text, time)
  if #text > 64 then return end
  local number = tonumber(text)
  if number then
    if number ~= number or number < 0 then return end
    if number > 1e11 then number = number / 1000 end
    return number > 1e9 and math.max(number - time, 0) or number
  end
  local year, month, day, hour, minute, second = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)[Tt](%d%d):(%d%d):(%d%d)")
  if year then
    local at = days(tonumber(year), tonumber(month), tonumber(day)) * 86400 + tonumber(hour) * 3600
      + tonumber(minute) * 60 + tonumber(second)
    local sign, hours, minutes = text:match("([+-])(%d%d):(%d%d)$")
    if sign then at = at - (sign == "-" and -1 or 1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60) end
    return math.max(at - time, 0)
  end
  local sum, rest = 0, text
  while rest ~= "" do
    local count, unit, after = rest:match("^(%d+%.?%d*)(%a+)(.*)$")
    if not count or not UNITS[unit] then return end
    sum, rest = sum + tonumber(count) * UNITS[unit], after
  end
  return text ~= "" and sum or nil
end

local NAMES = {
  requests = {
    { "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests" },
    { "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset" },
    { "x-ratelimit-remaining", "x-ratelimit-reset" },
  },
  tokens = {
    { "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens" },
    { "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset" },
  },
}

--- How many "requests" or "tokens" the provider still takes, and for how many seconds that counts; nil when the answer
--- does not say both, or what it says is nothing that can be.
function limits.said(attempt, what)
  for _, names in ipairs(NAMES[what]) do
    local remaining, reset = attempt:header(names[1]), attempt:header(names[2])
    remaining = remaining and tonumber(remaining)
    reset = reset and limits.seconds(reset, now())
    if remaining and reset and remaining >= 0 and remaining < 1e12 and reset <= 86400 then return remaining, reset end
  end
end

return limits
