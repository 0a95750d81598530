--- Tells people when something fails too often.
--
-- A failed attempt counts for the first rule that matches it, within that rule's sliding window. When the count is
-- reached the alert is raised once, the counting starts again from zero, and for `cooldown` seconds the rule is silent
-- for that provider (or target, see `by`). When nothing has matched for a whole window, the first success says that it
-- is over.
--
-- The text names the rule, the provider and model, the status and the provider's code; never a message or a body,
-- because those may hold a prompt. Without `to` alerts are in the log only.

local category = require "lib.category"

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
local function prepare(rule)
  return {
    rule = rule, label = label(rule), window = rule.window, count = rule.count,
    category = rule.category, code = rule.code ~= nil and tostring(rule.code) or nil, status = rule.status,
    options = { seconds = rule.window, limit = rule.count },
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

-- Whose failures are counted together.
local function scope_of(self, call)
  if self.by == "all" then return "all targets" end
  return self.by == "target" and call.target.name or call.target.provider
end

-- `raised/KEY` holds when the rule last matched, as long as its alert is open. `any/SCOPE` says that there may be one,
-- and before which time none can be over: successes come in thousands, and until then they have nothing to look for.
-- Here that is now, and the next success works it out: so nobody's earlier time is overwritten with a later one.
local function raise(self, rule, scope, key, call, err)
  local cooldown = rule.rule.cooldown or self.cooldown
  if not store.add("told/" .. key, true, cooldown) then return end
  local time = now()
  store.set("raised/" .. key, time, DAY)
  store.set("any/" .. scope, time, DAY)
  local text = ("%d x %s at %s within %g s; the last: %s at %s%s%s"):format(
    rule.count, rule.label, scope, rule.window, err.category, call.target.name,
    err.status > 0 and ", HTTP " .. err.status or "", err.code and ", code " .. err.code or "")
  log.warn("alert", { rule = rule.label, scope = scope, target = call.target.name })
  if self.to then notify { key = key:sub(1, KEY), to = self.to, text = text } end
end

local function count(self, rule, scope, call, err)
  local key = rule.label .. " at " .. scope
  local raised = "raised/" .. key
  if store.get(raised) then
    store.set(raised, now(), DAY)
  end
  local window = store.window("seen/" .. key, rule.options)
  if (window:add() or 0) >= rule.count then
    window:clear()
    raise(self, rule, scope, key, call, err)
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
      if self.to then
        notify { key = key:sub(1, KEY), to = self.to, resolve = true,
                 text = ("%s at %s: none for %g s, and calls succeed"):format(rule.label, scope, rule.window) }
      end
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

local KNOWN = { category = true, code = true, status = true, count = true, window = true, cooldown = true }

local function rule_complaint(i, rule)
  local where = ("rules[%d]"):format(i)
  if type(rule) ~= "table" then
    return where .. " must be a table { category =, code =, status =, count =, window = }"
  end
  for field in pairs(rule) do
    if not KNOWN[field] then
      return ("%s has no field %q; it takes category, code, status, count, window, cooldown")
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
end

return policy {
  name = "alert",
  doc = "tell people when something fails too often",

  params = {
    to       = param { type = "sink", optional = true, doc = "where alerts go; without it they are only logged" },
    by       = param { "provider", values = { "target", "provider", "all" },
                       doc = "whose failures are counted together" },
    cooldown = param { 3600, min = 1, max = DAY, unit = "s",
                       doc = "silence of a rule after it fired, unless the rule says" },
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
      doc = "{ category and/or code and/or status, count, window in seconds, cooldown in seconds (optional) }; "
            .. "the first that matches counts",
    },
  },

  check = function(self)
    self.prepared = {}
    for i, rule in ipairs(self.rules) do
      local wrong = rule_complaint(i, rule)
      if wrong then return wrong end
      self.prepared[i] = prepare(rule)
    end
  end,

  on_outcome = function(self, call, attempt)
    local scope, err = scope_of(self, call), attempt.err
    if not err then return settle(self, scope) end
    local rule = first_match(self.prepared, err)
    if rule then count(self, rule, scope, call, err) end
  end,
}
