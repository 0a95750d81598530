--- Tells people when something fails too often, and when most calls are quietly answered by somebody else.
--
-- A failed attempt counts for the first rule that matches it, within that rule's sliding window. When the count is
-- reached the alert is raised once, the counting starts again from zero, and for `cooldown` seconds the rule is silent
-- for that provider (or target or client, see `by`). While it is open each further match only counts, with its cause;
-- after `again` seconds it is told once more, with how many since. When nothing has matched for a whole window, the
-- first success says that it is over.
--
-- The silent fallback: of the calls that went well within `fallback_window`, at least `fallback_calls`, more than
-- `fallback_share` were answered by another target than the one they were meant for. Clients notice nothing, and
-- neither does anybody who pays for it.
--
-- The text names the rule, the provider and model, the status and the provider's code; never a message or a body,
-- because those may hold a prompt. Without `to` alerts are in the log only.

local category = require "lib.category"
local tell = require "lib.tell"

local DAY = 86400
local KEY = 150 -- bytes of an alert's key: model names are as long as clients like

local function label(rule)
  local parts = {}
  for _, field in ipairs { "category", "code", "status" } do
    if rule[field] ~= nil then parts[#parts + 1] = field .. " " .. tostring(rule[field]) end
  end
  return table.concat(parts, ", ")
end

-- What `count` and `settle` need of a rule, made once when the parameters are checked.
local function prepare(self, rule)
  local severity = rule.severity or tell.severity_of(rule.category)
  return {
    rule = rule, label = label(rule), window = rule.window, count = rule.count,
    category = rule.category, code = rule.code ~= nil and tostring(rule.code) or nil, status = rule.status,
    options = { seconds = rule.window, limit = rule.count },
    severity = severity, sinks = tell.sinks(self.to, severity),
  }
end

local function first_match(rules, err)
  local kind, code, status = err.category, err.code, err.status
  for _, rule in ipairs(rules) do
    if (rule.category == nil or rule.category == kind)
       and (rule.code == nil or rule.code == code)
       and (rule.status == nil or rule.status == status) then
      return rule
    end
  end
end

-- Whose failures are counted together. `name`: of the target; the call's own when it is not given.
local function scope_of(self, call, name)
  local by = self.by
  if by == "all" then return "all targets" end
  if by == "client" then return call.client and "client " .. call.client or "clients without a key" end
  if by == "target" then return name or call.target.name end
  return name and name:match("^[^/]*") or call.target.provider
end

-- What people and C's counting of causes see of a failure: "server, HTTP 500", "billing, HTTP 402, code quota".
local function cause_of(err)
  return err.category .. (err.status > 0 and ", HTTP " .. err.status or "")
         .. (err.code and ", code " .. err.code or "")
end

-- `raised/KEY` holds when the rule last matched, as long as its alert is open. `any/SCOPE` says that there may be one,
-- and before which time none can be over: successes come in thousands, and until then they have nothing to look for.
-- Here that is now, and the next success works it out: so nobody's earlier time is overwritten with a later one.
local function raise(self, rule, scope, key, call, err, count)
  local cooldown = rule.rule.cooldown or self.cooldown
  if not store.add("told/" .. key, true, cooldown) then return false end
  local time, cause = now(), cause_of(err)
  store.set("raised/" .. key, time, DAY)
  store.set("any/" .. scope, time, DAY)
  log.warn("alert", { rule = rule.label, scope = scope, target = call.target.name })
  tell.all(rule.sinks, {
    key = key:sub(1, KEY), severity = rule.severity, cause = cause, count = count, repeat_after = self.again,
    title = ("%s at %s"):format(rule.label, scope),
    text = ("%d x %s at %s within %g s; the last: %s at %s%s%s"):format(
      rule.count, rule.label, scope, rule.window, err.category, call.target.name,
      err.status > 0 and ", HTTP " .. err.status or "", err.code and ", code " .. err.code or ""),
    sample = ("%s, call %s"):format(cause, call.id),
  })
  return true
end

local function count(self, rule, scope, call, err)
  local key = rule.label .. " at " .. scope
  local raised = "raised/" .. key
  local open = store.get(raised)
  if open then store.set(raised, now(), DAY) end
  local window = store.window("seen/" .. key, rule.options)
  local reached = (window:add() or 0) >= rule.count
  if reached then window:clear() end
  local told = reached and raise(self, rule, scope, key, call, err, open and 1 or rule.count)
  if open and not told and #rule.sinks > 0 then
    local cause = cause_of(err)
    tell.all(rule.sinks, {
      key = key:sub(1, KEY), update = true, cause = cause, severity = rule.severity, repeat_after = self.again,
      sample = ("%s, call %s"):format(cause, call.id),
    })
  end
end

-- After a success: closes the alerts of rules that have been quiet for their whole window.
local function settle(self, scope)
  local any = "any/" .. scope
  local due = store.get(any)
  if not due then return end
  local time = now()
  if due ~= true and time < due then return end -- `true`: set by a parry before this one, and still in the store
  local next_due
  for _, rule in ipairs(self.prepared) do
    local key = rule.label .. " at " .. scope
    local last = store.get("raised/" .. key)
    if last and time - last >= rule.window then
      store.remove("raised/" .. key)
      tell.all(rule.sinks, {
        key = key:sub(1, KEY), resolve = true,
        text = ("%s at %s: none for %g s, and calls succeed"):format(rule.label, scope, rule.window),
      })
    elseif last then
      next_due = math.min(next_due or math.huge, last + rule.window)
    end
  end
  if next_due then
    store.set(any, next_due, DAY)
  else
    store.remove(any)
  end
end

-- Good calls are counted in windows that stand side by side, not in a sliding one: two counters cost a good call one
-- addition. Judged is at `fallback_calls` calls, then at each call that fell back.
local function watch_fallback(self, call, scope)
  local meant_for = call.attempt > 1 and call.ledger[1].target or nil
  local fell_back = meant_for ~= nil and meant_for ~= call.target.name
  if fell_back then scope = scope_of(self, call, meant_for) end
  local slot = scope .. "/" .. math.floor(now() / self.fallback_window)
  local total = store.count("good/" .. slot, 1, self.fallback_window) or 0
  if fell_back then store.count("moved/" .. slot, 1, self.fallback_window) end
  if total < self.fallback_calls or not (fell_back or total == self.fallback_calls) then return end
  local moved = store.counter("moved/" .. slot) or 0
  local share, raised, key = moved / total, "fallback/" .. scope, "fallback at " .. scope
  if share > self.fallback_share then
    local open = store.get(raised)
    store.set(raised, true, DAY)
    if not open then log.warn("alert", { rule = "fallback", scope = scope, moved = moved, calls = total }) end
    tell.all(self.fallback_sinks, {
      key = key:sub(1, KEY), severity = "warning", repeat_after = self.again, count = open and 1 or moved,
      title = ("calls for %s are answered by others"):format(scope),
      text = ("%d of %d good calls within %g s were answered by another target; the last by %s"):format(
        moved, total, self.fallback_window, call.target.name),
      cause = "answered by " .. call.target.name,
    })
  elseif total == self.fallback_calls and store.remove(raised) then
    tell.all(self.fallback_sinks, {
      key = key:sub(1, KEY), resolve = true,
      text = ("%s answers its calls again: %d of %d were answered by others"):format(scope, moved, total),
    })
  end
end

local KNOWN = {
  category = true, code = true, status = true, count = true, window = true, cooldown = true, severity = true,
}

local function rule_complaint(i, rule)
  local where = ("rules[%d]"):format(i)
  if type(rule) ~= "table" then
    return where .. " must be a table { category =, code =, status =, count =, window = }"
  end
  for field in pairs(rule) do
    if not KNOWN[field] then
      return ("%s has no field %q; it takes category, code, status, count, window, cooldown, severity")
               :format(where, tostring(field))
    end
  end
  local wrong = rule.category ~= nil and category.complaint(rule.category)
  if wrong then return where .. ": " .. wrong end
  if label(rule) == "" then return where .. " needs a category, a code or a status" end
  if math.type(rule.count) ~= "integer" or rule.count < 1 or rule.count > 1000 then
    return where .. ": count must be a whole number 1..1000"
  end
  if type(rule.window) ~= "number" or rule.window <= 0 or rule.window > DAY then
    return where .. ": window must be more than 0 and at most 86400 s"
  end
  local cooldown = rule.cooldown
  if cooldown ~= nil and (type(cooldown) ~= "number" or cooldown <= 0 or cooldown > DAY) then
    return where .. ": cooldown must be more than 0 and at most 86400 s"
  end
  if rule.severity ~= nil and not tell.is_severity(rule.severity) then
    return where .. ": severity must be info, warning, error or critical"
  end
end

return policy {
  name = "alert",
  doc = "tell people when something fails too often",

  params = {
    to       = param { type = "sinks", optional = true,
                       doc = "where alerts go: a sink, a list, or { warning = sink, critical = sink }; without it they "
                             .. "are only logged" },
    by       = param { "provider", values = { "target", "provider", "client", "all" },
                       doc = "whose failures are counted together" },
    cooldown = param { 3600, min = 1, max = DAY, unit = "s",
                       doc = "silence of a rule after it fired, unless the rule says" },
    again    = param { 3600, min = 1, max = DAY, unit = "s", doc = "an alert that goes on is told again after this" },
    rules    = param {
      {
        { code = -1000, count = 5, window = 60 },   -- KIMI: system error
        { code = -2002, count = 10, window = 300 }, -- KIMI: tokens expire faster than they are renewed
        { category = "auth", count = 10, window = 300 },
        { category = "permission", count = 10, window = 300 },
        { category = "billing", count = 3, window = 300 },
        { category = "overloaded", count = 10, window = 60 },
        { category = "server", count = 10, window = 60 },
        { category = "timeout", count = 10, window = 60 },
        { category = "network", count = 10, window = 60 },
        { category = "rate_limit", count = 50, window = 300 },
      },
      type = "list", of = "any", max = 64,
      doc = "{ category and/or code and/or status, count, window in seconds, cooldown in seconds (optional), severity "
            .. "(optional) }; the first that matches counts",
    },
    fallback_share  = param { 0.5, min = 0, max = 1, unit = "of the good calls",
                              doc = "more than this answered by another target is an alert; 1: never" },
    fallback_calls  = param { 20, min = 1, max = 100000, doc = "so many good calls at least" },
    fallback_window = param { 300, min = 1, max = DAY, unit = "s", doc = "within so long" },
  },

  check = function(self)
    self.prepared = {}
    for i, rule in ipairs(self.rules) do
      local wrong = rule_complaint(i, rule)
      if wrong then return wrong end
      self.prepared[i] = prepare(self, rule)
    end
    self.fallback_sinks = tell.sinks(self.to, "warning")
  end,

  on_outcome = function(self, call, attempt)
    local scope, err = scope_of(self, call), attempt.err
    if err then
      local rule = first_match(self.prepared, err)
      if rule then count(self, rule, scope, call, err) end
    else
      settle(self, scope)
      if self.fallback_share < 1 then watch_fallback(self, call, scope) end
    end
  end,
}
