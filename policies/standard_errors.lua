--- One shape of errors for clients, whatever the provider did and whoever found the error.
--
-- Speaks once, when a call has failed for good: after a provider's error that no other policy took, for what parry
-- refuses itself (deadline, limits, open breakers, fail{} of other policies), and for the event that ends a stream
-- which broke after it had begun. Policies that answer by themselves with respond{} are not touched: give validate
-- and file_check the same `style`.

local category = require "lib.category"
local errors = require "lib.errors"

-- One line, without addresses and paths of the inside, stack traces, or more than is of use.
local function scrubbed(message, most)
  message = message:gsub("[%c]+", " "):gsub("%a[%w+.-]*://[^%s\"'<>]+", "[url]")
  message = message:gsub("Traceback.*", ""):gsub("%s+at [%w_.$<>]+%(.*", ""):gsub("File \".-\".*", "")
  message = message:gsub("%f[%w/]/[%w_.-]+/[%w_./-]+", "[path]"):gsub("%s+", " ")
  if #message > most then
    message = message:sub(1, most):gsub("[\xC0-\xFF][\x80-\xBF]*$", "") .. "..."
  end
  return message
end

-- What parry says itself is fit for clients; a provider's own words are passed when told so.
local function message_of(self, err)
  if err.source == "parry" then return err.message end
  if self.pass_messages and err.message ~= "" then
    local message = scrubbed(err.message, self.longest)
    if message:find("%w") then return message end
  end
  return self.messages[err.category] or errors.TEXT[err.category]
end

-- A provider's status is kept when it is one of an error; a map by category, or by the status itself, wins.
local function status_of(self, err)
  local mapped = self.status[err.category] or self.status[tostring(err.status)]
  if mapped then return mapped end
  if err.status >= 400 and err.status <= 599 then return err.status end
  return errors.STATUS[err.category]
end

return policy {
  name = "standard_errors",
  doc = "one shape of errors for clients, whatever the provider did",

  params = {
    style         = param { "house", values = { "house", "client", "openai", "anthropic", "kimi" },
                            doc = "the shape; \"client\" is that of the API the client speaks" },
    status        = param { {}, type = "any",
                            doc = "other statuses, by category or status: { billing = 503, [\"529\"] = 503 }" },
    pass_messages = param { false, doc = "pass on what the provider said, scrubbed, instead of a text of our own" },
    pass_codes    = param { false, doc = "the provider's code instead of the category" },
    messages      = param { {}, type = "map", of = "any", doc = "other texts, by category" },
    longest       = param { 300, min = 20, max = 500, doc = "bytes of a provider's message" },
  },

  check = function(self)
    if type(self.status) ~= "table" then
      return ("status must be a table { billing = 503, ... }, got %s"):format(tostring(self.status))
    end
    for key, status in pairs(self.status) do
      if type(key) == "number" then return ("status: write [\"%s\"], as a text"):format(tostring(key)) end
      local known = type(key) == "string" and (not category.complaint(key) or key:find("^[45]%d%d$"))
      if not known then return ("status: %s is neither a category nor a status as text"):format(tostring(key)) end
      if math.type(status) ~= "integer" or status < 400 or status > 599 then
        return ("status: %s must be 400..599, got %s"):format(key, tostring(status))
      end
    end
    for key, text in pairs(self.messages) do
      local wrong = category.complaint(key)
      if wrong then return "messages: " .. wrong end
      if type(text) ~= "string" or #text > 500 then
        return ("messages: %s must be a text of at most 500 bytes"):format(key)
      end
    end
  end,

  on_failure = function(self, call, err)
    local own = err.source == "parry" or self.pass_codes
    return errors.respond(call, self.style, {
      category = err.category,
      status = status_of(self, err),
      code = own and err.code or err.category,
      message = message_of(self, err),
      retry_after = err.retry_after,
    }, "in the shape of " .. errors.style_of(call, self.style))
  end,
}
