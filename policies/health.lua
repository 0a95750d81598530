--- Asks targets on purpose, now and then, whether they work, so that a call need not find out.
--
-- Every `interval` seconds each target is checked: can it be reached, does it take the credential, does it have the
-- model? After `failures` bad checks in a row it is unhealthy and attempts at it are refused, which leads to
-- fallback_model; after `successes` good ones it is healthy again. When nobody else takes the call, it goes to the
-- unhealthy target all the same: a check may be wrong, and nothing is lost. What is checked, and what the answers mean,
-- is the engine's; `parry health` asks the same, once, now.
--
-- A breaker learns from calls that failed, this before one did: use both, the breaker first.

local last_resort = require "lib.last_resort"

local CODE = "unhealthy"
local KEY = 150 -- bytes of an alert's key: model names are as long as clients like
local DAY = 86400

-- In the store, all forgotten when the checks stop (a policy that is no longer used must not keep a target shut).
-- Chains that use this policy under one name share it: what one found all of them know, and the same list is checked
-- once.
--   due/TARGETS      when to check these next
--   bad/T, good/T    checks in a row that ended so
--   down/T           T is unhealthy: why
--   any              some target is, or was lately: what a call looks at first

local function seconds_to_next(self)
  return self.interval * (1 + self.jitter * random())
end

-- For as long as a mark is good for without being renewed.
local function lifetime(self)
  return math.min(3 * self.interval * (1 + self.jitter) + 60, DAY)
end

local function describe(result)
  local parts = { result.category or "error" }
  if result.status > 0 then parts[#parts + 1] = "HTTP " .. result.status end
  if result.code then parts[#parts + 1] = "code " .. result.code end
  local text = table.concat(parts, ", ")
  return result.hint and text .. ": " .. result.hint or text
end

local function tell(self, result, healthy)
  local target, what = result.target, healthy and "healthy again" or "unhealthy"
  log.warn("target is " .. what, {
    target = target, category = result.category, status = result.status, code = result.code,
  })
  if not self.to then return end
  notify {
    key = target:sub(1, KEY),
    to = self.to,
    resolve = healthy,
    text = healthy and target .. " is healthy again" or ("%s is unhealthy: %s"):format(target, describe(result)),
  }
end

-- One more check that ended well, or badly; how many in a row there were now.
local function count(self, target, good)
  store.remove((good and "bad/" or "good/") .. target)
  return store.count((good and "good/" or "bad/") .. target, 1, lifetime(self)) or 0
end

-- True: the target is unhealthy.
local function take(self, result)
  local target = result.target
  local down = "down/" .. target
  local known = store.get(down)
  if result.code == "memory" then return known ~= nil end -- our own trouble
  local row = count(self, target, result.ok)
  if result.ok then
    if not known then return false end
    if row < self.successes then
      store.set(down, known, lifetime(self))
      return true
    end
    store.remove(down)
    tell(self, result, true)
    return false
  end
  if not known and row < self.failures then return false end
  store.set(down, result.category or "unknown", lifetime(self))
  if not known then tell(self, result, false) end
  return true
end

-- Is it time? An interval that was made shorter counts at once.
local function is_due(self)
  local time, due = now(), store.get(self.due)
  if due and time < due and due <= time + self.interval * (1 + self.jitter) then return false end
  store.set(self.due, time + seconds_to_next(self), DAY)
  return true
end

local function check_all(self)
  if not is_due(self) then return end
  local targets = #self.targets > 0 and self.targets or health.targets()
  local results = health.check { targets = targets, probe = self.probe, timeout = self.timeout }
  if not results then return end -- memory is short: next time
  for _, result in ipairs(results) do
    if take(self, result) then store.set("any", true, lifetime(self)) end
  end
end

return policy {
  name = "health",
  doc = "check targets now and then, and go elsewhere while one is unhealthy",

  params = {
    targets   = param { {}, type = "list", of = "string",
                        doc = "what to check, \"provider/model\" or \"provider\"; empty: what the routes name" },
    interval  = param { 30.0, min = 1, max = 3600, unit = "s", doc = "between two checks of a target" },
    jitter    = param { 0.2, min = 0, max = 1, doc = "the interval is longer by up to this share, at random" },
    probe     = param { "models", values = { "models", "completion", "connect" },
                        doc = "the list of models; one token (costs money, each time); connectivity alone" },
    timeout   = param { 5.0, min = 0.1, max = 60, unit = "s", doc = "of one check" },
    failures  = param { 2, min = 1, max = 100, doc = "bad checks in a row that make a target unhealthy" },
    successes = param { 2, min = 1, max = 100, doc = "good checks in a row that make it healthy again" },
    to        = param { type = "sink", optional = true, doc = "where to tell that a target is unhealthy, or is again" },
  },

  check = function(self)
    for i, target in ipairs(self.targets) do
      if target == "" or #target > 200 or target:find("*", 1, true) then
        return ("targets[%d] must be \"provider/model\" or \"provider\", written out"):format(i)
      end
    end
    self.anyway = self.name .. ".anyway" -- in call.vars, of this instance
    self.due = ("due/" .. table.concat(self.targets, ",")):sub(1, 400)
  end,

  on_attempt = function(self, call)
    if not store.get("any") then return end
    local target = call.target
    local why = store.get("down/" .. target.name) or store.get("down/" .. target.provider)
    if not why or call.vars[self.anyway] then return end
    return refuse {
      category = "overloaded",
      code = CODE,
      message = target.name .. " is not asked at the moment, because checks say that it does not work",
      why = "checks of " .. target.name .. " fail: " .. why,
    }
  end,

  when = { fallback = true, last = true }, -- nobody else found another target

  on_error = function(self, call)
    if call.vars[self.anyway] then return end
    local targets = last_resort.refused(call, CODE)
    if #targets == 0 then return end
    call.vars[self.anyway] = true
    return last_resort.go(call, targets[1], 0, "no other target; trying the unhealthy one anyway")
  end,

  every = { { seconds = 1, run = check_all } }, -- looks at the clock only, until the interval is over
}
