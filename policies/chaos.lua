--- Fails attempts on purpose, to see what the other policies make of it.
--
-- Experiments are declared in the file, where they are checked and reviewed; declared is not armed. They are armed
-- for a time, with `parry chaos arm NAME --for 10m`, or in the file with `armed` and `until_time`; when the time is
-- over they are off again by themselves. A fault is injected where a provider's answer would come in, so breakers,
-- retries, fallbacks, alerts and metrics take it for real; ledger and log say `injected`. Nothing is sent for it.

local match = require "lib.match"
local time = require "lib.time"

local DAY = 86400
local FILTERS = { models = true, targets = true, clients = true, sessions = true, headers = true }
local FAULTS = { category = true, status = true, code = true, curl = true }
local CURL = { timeout = true, connect = true, reset = true, dns = true }

-- What providers answer for each category: status, code, Anthropic's type.
local ANSWERS = {
  auth = { 401, "invalid_api_key", "authentication_error" },
  permission = { 403, "model_access_denied", "permission_error" },
  billing = { 402, "insufficient_balance", "billing_error" },
  rate_limit = { 429, "rate_limit_exceeded", "rate_limit_error" },
  overloaded = { 529, "overloaded_error", "overloaded_error" },
  server = { 500, "server_error", "api_error" },
  invalid_request = { 400, "invalid_value", "invalid_request_error" },
  not_found = { 404, "model_not_found", "not_found_error" },
  context_length = { 400, "context_length_exceeded", "invalid_request_error" },
  content_policy = { 400, "content_policy_violation", "invalid_request_error" },
  conflict = { 409, "conversation_locked", "invalid_request_error" },
  payload_too_large = { 413, "request_too_large", "request_too_large" },
}
local BROKEN = { timeout = "timeout", network = "reset" } -- categories that have no answer

-- What to inject --------------------------------------------------------------------------------------------------

local function body_of(dialect, code, type)
  if code:find("^%-%d+$") then
    return { errcode = math.tointeger(tonumber(code)), errmsg = "injected by parry", data = json.null }
  end
  if dialect == "anthropic" then
    return { type = "error", error = { type = type or code, message = "injected by parry" } }
  end
  return { error = { message = "injected by parry", type = type or code, code = code, param = json.null } }
end

local function by_status(status)
  for _, category in ipairs { "server", "rate_limit", "overloaded", "auth", "permission", "billing", "not_found",
                              "conflict", "payload_too_large", "invalid_request" } do
    if ANSWERS[category][1] == status then return ANSWERS[category] end
  end
  return { status, "injected", status >= 500 and "api_error" or "invalid_request_error" }
end

-- The verdict for a fault { category | status | code | curl, retry_after, delay }; with a delay alone the attempt
-- goes on to the provider after it.
local function verdict_of(fault, dialect, why)
  local broken = fault.curl or BROKEN[fault.category]
  if broken then
    return inject { curl = broken, delay = fault.delay, why = why }
  end
  local answer = fault.category and ANSWERS[fault.category] or fault.status and by_status(fault.status)
  if not answer and not fault.code then
    return inject { delay = fault.delay, why = why }
  end
  local code = fault.code or answer[2]
  local kimi = code:find("^%-") ~= nil
  return inject {
    status = fault.status or answer and answer[1] or kimi and 200 or 400,
    headers = { ["content-type"] = "application/json",
                ["retry-after"] = fault.retry_after and tostring(fault.retry_after) },
    body = body_of(dialect, code, answer and answer[3]),
    delay = fault.delay,
    why = why,
  }
end

-- A fault in one word: a category, a status, a KIMI code, what breaks a connection, or a provider's code.
local function fault_of(word)
  local status = math.tointeger(tonumber(word))
  if status and status >= 400 and status <= 599 then return { status = status } end
  if ANSWERS[word] or BROKEN[word] then return { category = word } end
  if CURL[word] then return { curl = word } end
  return { code = word }
end

-- Faults that a request asks for: only with allow_requests --------------------------------------------------------

local function number(value, most)
  value = tonumber(value)
  return value and value >= 0 and value <= most and value or nil
end

-- x-parry-fault: code=429;retry-after=1;delay=0.2;times=1, or a code alone.
local function read_header(text)
  local parts = {}
  for part in text:sub(1, 200):gmatch("[^;]+") do -- the patterns below take long for long runs of spaces
    local key, value = part:match("^%s*([%w-]+)%s*=%s*(.-)%s*$")
    parts[key or "code"] = value or part:match("^%s*(.-)%s*$")
  end
  local fault = parts.code and fault_of(parts.code:sub(1, 60)) or {}
  fault.retry_after, fault.delay = number(parts["retry-after"], DAY), number(parts.delay, DAY)
  fault.times = number(parts.times, 1000)
  return fault
end

local function read_body(body)
  if type(body) ~= "table" or body.simulateError ~= true then return end
  local word = body.errorCode
  if math.type(word) == "integer" then word = ("%d"):format(word) end
  local fault = type(word) == "string" and fault_of(word:sub(1, 60)) or {}
  local milliseconds = number(body.delay, DAY * 1000)
  fault.delay = milliseconds and milliseconds / 1000
  fault.times = number(body.times, 1000)
  return fault
end

local function injects(fault)
  return fault.category or fault.status or fault.code or fault.curl or (fault.delay or 0) > 0
end

local function asked_for(call)
  local header = call:header("x-parry-fault")
  if header then return read_header(header) end
  if call.method ~= "POST" then return end
  return read_body((call:json { cut = 256 }))
end

-- What is armed ---------------------------------------------------------------------------------------------------

-- { [experiment] = { rate =, ["until"] = } }, what has expired left out; nil when there is nothing.
local function armed_now()
  local text = store.get("armed")
  if not text then return nil end
  local armed, left = json.decode(text), {}
  local some
  for name, row in pairs(armed) do
    if row["until"] > now() then left[name], some = row, true end
  end
  return some and left or nil
end

-- What the file arms counts, too, unless somebody has said otherwise at run time.
local function with_file(self, armed)
  if #self.armed == 0 or self.expires <= now() then return armed end
  armed = armed or {}
  for _, name in ipairs(self.armed) do
    armed[name] = armed[name] or { rate = self.experiments[name].rate or 1, ["until"] = self.expires }
  end
  return armed
end

local function keep(armed)
  local latest = 0
  for _, row in pairs(armed) do latest = math.max(latest, row["until"]) end
  if latest <= now() then
    store.remove("armed")
  else
    store.set("armed", json.encode(armed), latest - now())
  end
end

local function fits_one(patterns, text)
  for _, pattern in ipairs(patterns) do
    if match.glob(pattern, text or "") then return true end
  end
  return false
end

local function concerns(experiment, call)
  local function miss(patterns, text) return patterns and not fits_one(patterns, text) end
  if miss(experiment.models, call.model) or miss(experiment.targets, call.target.name)
    or miss(experiment.clients, call.client) or miss(experiment.sessions, call.session) then
    return false
  end
  for name, pattern in pairs(experiment.headers or {}) do
    if not match.glob(pattern, call:header(name) or "") then return false end
  end
  return true
end

-- Checking experiments --------------------------------------------------------------------------------------------

local function check_filter(name, field, value)
  if type(value) ~= "table" then
    return ("experiments.%s: %s must be a list of globs, got %s"):format(name, field, type(value))
  end
  for key, pattern in pairs(value) do
    if type(pattern) ~= "string" or (field == "headers") ~= (type(key) == "string") then
      return field == "headers" and ("experiments.%s: headers must be { [\"name\"] = \"glob\" }"):format(name)
        or ("experiments.%s: %s must be a list of globs"):format(name, field)
    end
  end
end

local NUMBERS = { rate = { 0, 1 }, delay = { 0, 3600 }, retry_after = { 0, DAY }, status = { 400, 599 } }

local function check_field(name, field, value)
  if FILTERS[field] then return check_filter(name, field, value) end
  local range = NUMBERS[field]
  if range then
    if type(value) ~= "number" or value < range[1] or value > range[2]
      or (field == "status" and math.type(value) ~= "integer") then
      return ("experiments.%s: %s must be %g..%g"):format(name, field, range[1], range[2])
    end
  elseif field == "category" then
    if not (ANSWERS[value] or BROKEN[value]) then
      return ("experiments.%s: category %s cannot be injected"):format(name, tostring(value))
    end
  elseif field == "curl" then
    if not CURL[value] then
      return ("experiments.%s: curl must be timeout, connect, reset or dns"):format(name)
    end
  elseif field == "code" then
    if type(value) ~= "string" or value == "" then
      return ("experiments.%s: code must be text, as \"-2001\" or \"insufficient_quota\""):format(name)
    end
  else
    return ("experiments.%s: there is no field %s"):format(name, tostring(field))
  end
end

local function check_experiment(name, experiment)
  if type(name) ~= "string" or not name:find("^[%w_.-]+$") or #name > 40 then
    return "experiments: names are at most 40 letters, digits and _ . -"
  end
  if type(experiment) ~= "table" then
    return ("experiments.%s must be a table { category = \"overloaded\", rate = 0.1 }"):format(name)
  end
  local faults = 0
  for field, value in pairs(experiment) do
    local wrong = check_field(name, field, value)
    if wrong then return wrong end
    if FAULTS[field] then faults = faults + 1 end
  end
  if faults == 0 and not experiment.delay then
    return ("experiments.%s: needs a category, status, code, curl or delay"):format(name)
  end
  if faults > 1 and not (faults == 2 and experiment.status and experiment.code) then
    return ("experiments.%s: takes one of category, status (with or without a code), code and curl"):format(name)
  end
end

-- Commands: `parry chaos`, as an event of the core ----------------------------------------------------------------

-- nil, or what is wrong with it.
local function arm(self, armed, fields)
  local experiment = self.experiments[fields.experiment or ""]
  if not experiment then return "no such experiment" end
  if not fields.seconds or fields.seconds <= 0 or fields.seconds > self.longest then
    return ("--for must be above 0 and at most %d s (longest)"):format(self.longest)
  end
  armed[fields.experiment] = { rate = fields.rate or experiment.rate or 1, ["until"] = now() + fields.seconds }
end

local function disarm(self, armed, fields)
  for name in pairs(self.experiments) do
    if not fields.experiment or fields.experiment == name then
      local by_file = self.expires > now() and self.by_file[name]
      armed[name] = by_file and { rate = 0, ["until"] = self.expires } or nil
    end
  end
  if fields.experiment and not self.experiments[fields.experiment] then return "no such experiment" end
end

-- The answer, for whoever asked: other instances of this name (on other routes) add to it.
local function report(self, fields, armed, wrong)
  local known, told = {}, store.get("report")
  told = told and json.decode(told)
  if told and told.request == fields.request then
    for _, name in ipairs(told.known) do known[name] = true end
    wrong = wrong and told.wrong
  end
  for name in pairs(self.experiments) do known[name] = true end
  local names = json.array {}
  for name in pairs(known) do names[#names + 1] = name end
  store.set("report", json.encode { request = fields.request, known = names, armed = armed, wrong = wrong }, 60)
end

return policy {
  name = "chaos",
  doc = "fail attempts on purpose, for a time, to see what the other policies make of it",

  params = {
    experiments    = param { {}, type = "map", of = "any",
                             doc = "{ [\"name\"] = { category | status | code | curl, delay, rate, "
                             .. "retry_after, models, targets, clients, sessions, headers } }" },
    armed          = param { {}, type = "list", of = "string", doc = "experiments that this file arms" },
    until_time     = param { "", doc = "when those end, in UTC: \"2026-11-21T18:00Z\"" },
    longest        = param { 3600, min = 1, max = 86400, unit = "s",
                             doc = "an experiment may be armed for so long" },
    allow_requests = param { false, doc = "requests may ask for faults themselves: x-parry-fault, simulateError" },
  },

  check = function(self)
    local count = 0
    for name, experiment in pairs(self.experiments) do
      local wrong = check_experiment(name, experiment)
      if wrong then return wrong end
      count = count + 1
    end
    if count > 24 then return "experiments: at most 24" end
    self.by_file = {}
    for _, name in ipairs(self.armed) do
      if not self.experiments[name] then return ("armed: there is no experiment %q"):format(name) end
      self.by_file[name] = true
    end
    self.expires = 0
    if self.until_time ~= "" then
      self.expires = time.parse(self.until_time)
      if not self.expires then return "until_time must be a time in UTC, such as \"2026-11-21T18:00Z\"" end
    end
    if #self.armed > 0 and self.expires == 0 then return "armed: needs an until_time" end
    if #self.armed > 0 then
      return nil, ("armed until %s: calls fail on purpose (%s)"):format(self.until_time, table.concat(self.armed, ", "))
    end
    if self.allow_requests then
      return nil, "allow_requests: every client can have its calls fail on purpose"
    end
  end,

  only_with = { on_request = "allow_requests" },

  on_request = function(self, call)
    local fault = asked_for(call)
    if fault and injects(fault) then call.vars[self.name .. ".fault"] = fault end
  end,

  on_attempt = function(self, call)
    if self.allow_requests then
      local fault = call.vars[self.name .. ".fault"]
      if fault and call.attempt <= (fault.times or math.huge) then
        return verdict_of(fault, call.dialect, "asked for by the request")
      end
    end
    local armed = with_file(self, armed_now())
    if not armed then return end
    for name, row in pairs(armed) do
      local experiment = self.experiments[name]
      if experiment and row.rate > 0 and concerns(experiment, call) and random() < row.rate then
        return verdict_of(experiment, call.dialect, "experiment " .. name)
      end
    end
  end,

  on_event = function(self, event)
    local fields = event.fields
    if event.name ~= "chaos" or (fields.instance and fields.instance ~= self.name) then return end
    local armed = armed_now() or {}
    local wrong
    if fields.action == "arm" then
      wrong = arm(self, armed, fields)
    elseif fields.action == "off" then
      wrong = disarm(self, armed, fields)
    end
    if fields.action ~= "list" and not wrong then
      keep(armed)
      log.warn("chaos " .. fields.action, { experiment = fields.experiment, rate = fields.rate,
                                            seconds = fields.seconds })
    end
    report(self, fields, with_file(self, armed_now()) or {}, wrong)
  end,

  every = {
    { -- so that nobody forgets, and `parry status` shows what the file arms
      seconds = 60,
      run = function(self)
        local armed = with_file(self, armed_now())
        if not armed then return end
        keep(armed)
        local names = {}
        for name, row in pairs(armed) do
          if row.rate > 0 then names[#names + 1] = ("%s at rate %g"):format(name, row.rate) end
        end
        if #names > 0 then log.warn("chaos is armed", { experiments = table.concat(names, ", ") }) end
      end,
    },
  },
}
