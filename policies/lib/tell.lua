--- Telling several sinks, by how bad it is. For policies whose `to` is a parameter of type "sinks".

local tell = {}

local ORDER = { info = 1, warning = 2, error = 3, critical = 4 }
local NAMES = { "info", "warning", "error", "critical" }

--- The severities, for checks of parameters that hold them.
function tell.is_severity(name)
  return ORDER[name] ~= nil
end

--- How bad a failure of this category is: somebody must act at once, something is broken, or it may pass.
---@param category string?
---@return string
function tell.severity_of(category)
  if category == "auth" or category == "billing" then return "critical" end
  if category == "rate_limit" or category == "overloaded" then return "warning" end
  return "error"
end

local function as_list(names)
  return type(names) == "string" and { names } or names
end

--- The sinks for a severity: with { warning = "ops", critical = "pager" } a warning and an error go to ops, critical to
--- pager, and info to nobody. Without `to` it is nobody's but the application's that parry is a part of, if it is.
---@param to string|table|nil   as a parameter of type "sinks"
---@param severity string
---@return (string|false)[]
function tell.sinks(to, severity)
  if not to then return { false } end
  if type(to) == "string" or #to > 0 then return as_list(to) end
  for at = ORDER[severity], 1, -1 do
    local names = to[NAMES[at]]
    if names then return as_list(names) end
  end
  return {}
end

--- notify{} to each of the sinks. `alert.to` is set here; `alert.severity` should be what the sinks were chosen by.
---@param sinks (string|false)[]
---@param alert table
function tell.all(sinks, alert)
  for _, sink in ipairs(sinks) do
    alert.to = sink or nil
    notify(alert)
  end
end

return tell
