--- Refuses requests that cannot work, before anything is sent, and names every wrong field at once.
--
-- Checked are POSTs whose path ends as a generation or embedding request's does; everything else passes. Fields
-- that are not known here pass, too: providers add some every month. Texts are looked at as far as they matter (the
-- first 512 bytes).

local errors = require "lib.errors"
local match = require "lib.match"
local request = require "lib.request"

local CUT = 512
local SHOWN = 20      -- wrong fields that are named
local STEPS = 3000    -- parts of a body that are looked at: more cannot be checked within a handler's budget

local ROLES = {
  chat = { system = true, developer = true, user = true, assistant = true, tool = true, ["function"] = true },
  messages = { user = true, assistant = true },
}

-- Types of parts of a message: the field that must be there, and its type.
local PARTS = {
  chat = {
    text = { "text", "string" }, image_url = { "image_url", "image" }, input_audio = { "input_audio", "table" },
    file = { "file", "table" }, refusal = { "refusal", "string" }, video_url = { "video_url", "table" },
  },
  messages = {
    text = { "text", "string" }, image = { "source", "source" }, document = { "source", "source" },
    tool_use = { "id", "string" }, tool_result = { "tool_use_id", "string" }, thinking = { "thinking", "string" },
    redacted_thinking = { "data", "string" }, search_result = { "content", "table" },
  },
}

local IMAGES = { png = true, jpeg = true, jpg = true, gif = true, webp = true }

-- What is wrong, as it is found -----------------------------------------------------------------------------------

local function note(found, field, message, code)
  found.count = found.count + 1
  if found.count <= SHOWN then
    found[found.count] = { field = field, message = message, code = code or "invalid_value" }
  end
end

-- False: the body has more in it than can be checked.
local function step(found)
  found.steps = found.steps + 1
  return found.steps <= STEPS
end

local function is_text(value)
  return type(value) == "string" and value:find("%S") ~= nil
end

local function shown(value)
  if type(value) == "string" then return ("%q"):format(value:sub(1, 40)) end
  if value == json.null then return "null" end
  return type(value) == "table" and "an object or list" or tostring(value)
end

-- Single values ---------------------------------------------------------------------------------------------------

local function number(found, field, value, low, high)
  if value == nil then return end
  if type(value) ~= "number" then
    note(found, field, "must be a number, got " .. shown(value), "invalid_type")
  elseif not (value >= low and value <= high) then
    note(found, field, ("must be %g to %g, got %g"):format(low, high, value))
  end
end

local function integer(found, field, value, low, high)
  if value == nil then return end
  local whole = type(value) == "number" and math.tointeger(value)
  if not whole then
    note(found, field, "must be a whole number, got " .. shown(value), "invalid_type")
  elseif whole < low then
    note(found, field, ("must be at least %d, got %d"):format(low, whole))
  elseif high and whole > high then
    note(found, field, ("must be at most %d, got %d"):format(high, whole))
  end
end

local function boolean(found, field, value)
  if value ~= nil and type(value) ~= "boolean" then
    note(found, field, "must be true or false, got " .. shown(value), "invalid_type")
  end
end

local function texts(found, field, value, most)
  if value == nil or type(value) == "string" then return end
  if not request.is_list(value) then
    return note(found, field, "must be a text or a list of texts, got " .. shown(value), "invalid_type")
  end
  if most and #value > most then note(found, field, ("must have at most %d texts"):format(most)) end
  for i, text in ipairs(value) do
    if i > 64 then break end
    if type(text) ~= "string" then
      note(found, ("%s[%d]"):format(field, i - 1), "must be a text, got " .. shown(text), "invalid_type")
    end
  end
end

-- An http(s) URL, or an image in the URL itself.
local function image(self, found, field, url)
  if not is_text(url) then
    return note(found, field, "must be a text that is not empty", "invalid_type")
  end
  local length = request.length(url)
  if url:find("^[hH][tT][tT][pP][sS]?://[^%s/?#]") then
    if length > 8192 then note(found, field, "is longer than 8192 bytes", "invalid_image_url") end
    return
  end
  local kind, encoded = url:match("^[dD][aA][tT][aA]:image/([%w.+-]+);base64,()")
  if not kind then
    return note(found, field, "must be an http or https URL, or data:image/png;base64,...", "invalid_image_url")
  end
  if not IMAGES[kind:lower()] then
    note(found, field, ("image/%s is none of png, jpeg, gif, webp"):format(kind:sub(1, 40)), "invalid_image_format")
  elseif length < encoded then
    note(found, field, "holds no image", "invalid_image_url")
  elseif length > self.max_image then
    note(found, field, ("is longer than %d bytes"):format(self.max_image), "image_too_large")
  end
end

-- Anthropic's source of an image or document.
local function source(self, found, field, value)
  if type(value) ~= "table" then return note(found, field, "is missing", "missing") end
  if value.type == "url" then
    if not (type(value.url) == "string" and value.url:find("^[hH][tT][tT][pP][sS]?://[^%s/?#]")) then
      note(found, field .. ".url", "must be an http or https URL", "invalid_image_url")
    end
  elseif value.type == "base64" then
    if not is_text(value.data) then
      note(found, field .. ".data", "must be a text that is not empty", "missing")
    elseif request.length(value.data) > self.max_image then
      note(found, field .. ".data", ("is longer than %d bytes"):format(self.max_image), "image_too_large")
    end
    local media = value.media_type
    local kind = type(media) == "string" and media:match("^image/([%w.+-]+)$")
    if not (kind and IMAGES[kind]) and media ~= "application/pdf" then
      note(found, field .. ".media_type",
        "must be image/png, jpeg, gif or webp, or application/pdf, got " .. shown(media))
    end
  end
end

-- Messages --------------------------------------------------------------------------------------------------------

local function part(self, found, kind, field, value)
  if type(value) == "string" and kind == "messages" then
    return note(found, field, "must be an object with a type", "invalid_type")
  end
  if type(value) ~= "table" then
    return note(found, field, "must be an object with a type, got " .. shown(value), "invalid_type")
  end
  if not is_text(value.type) then
    return note(found, field .. ".type", "must be a text that is not empty", "missing")
  end
  local known = PARTS[kind][value.type]
  if not known then
    if self.strict then note(found, field .. ".type", shown(value.type) .. " is not known") end
    return
  end
  local name, want = known[1], known[2]
  local inner = value[name]
  if want == "image" then
    local url = type(inner) == "table" and inner.url or inner
    image(self, found, field .. ".image_url" .. (type(inner) == "table" and ".url" or ""), url)
  elseif want == "source" then
    source(self, found, field .. ".source", inner)
  elseif inner == nil then
    note(found, field .. "." .. name, "is missing", "missing")
  elseif type(inner) ~= want then
    note(found, field .. "." .. name, "must be " .. (want == "table" and "an object" or "a text"), "invalid_type")
  end
end

local function content(self, found, kind, field, message)
  local value = message.content
  if type(value) == "string" then
    if not value:find("%S") and message.role ~= "assistant" and message.role ~= "tool" then
      note(found, field, "must not be empty", "empty")
    end
  elseif request.is_list(value) then
    if #value == 0 and message.role ~= "assistant" then note(found, field, "must not be empty", "empty") end
    for i, inner in ipairs(value) do
      if not step(found) then return end
      part(self, found, kind, ("%s[%d]"):format(field, i - 1), inner)
    end
  elseif value == nil then
    local calls = message.role == "assistant" and (message.tool_calls or message.function_call or message.audio
      or message.refusal or message.reasoning_content)
    if not calls then note(found, field, "is missing", "missing") end
  else
    note(found, field, "must be a text or a list of parts, got " .. shown(value), "invalid_type")
  end
end

local function tool_calls(found, field, value)
  if value == nil then return end
  if not request.is_list(value) or #value == 0 then
    return note(found, field, "must be a list that is not empty", "invalid_type")
  end
  for i, one in ipairs(value) do
    if not step(found) then return end
    local where = ("%s[%d]"):format(field, i - 1)
    if type(one) ~= "table" then
      note(found, where, "must be an object", "invalid_type")
    elseif not is_text(one.id) then
      note(found, where .. ".id", "is missing", "missing")
    end
  end
end

local function message_of(self, found, kind, field, message)
  if type(message) ~= "table" then
    return note(found, field, "must be an object, got " .. shown(message), "invalid_type")
  end
  local role = message.role
  if not is_text(role) then
    note(found, field .. ".role", "is missing", "missing")
  elseif not ROLES[kind][role] and (self.strict or kind == "messages") then
    note(found, field .. ".role", kind == "messages" and role == "system" and "the system prompt belongs into system"
      or shown(role) .. " is no role")
  end
  content(self, found, kind, field .. ".content", message)
  if kind == "chat" then
    if role == "tool" and not is_text(message.tool_call_id) then
      note(found, field .. ".tool_call_id", "is missing", "missing")
    end
    tool_calls(found, field .. ".tool_calls", message.tool_calls)
  end
end

local function messages(self, found, kind, value)
  if value == nil then return note(found, "messages", "is missing", "missing") end
  if not request.is_list(value) then
    return note(found, "messages", "must be a list, got " .. shown(value), "invalid_type")
  end
  if #value == 0 then return note(found, "messages", "must not be empty", "empty") end
  if #value > self.max_messages then
    return note(found, "messages",
      ("must have at most %d elements, got %d"):format(self.max_messages, #value), "too_many")
  end
  for i, message in ipairs(value) do
    if not step(found) then return end
    message_of(self, found, kind, ("messages[%d]"):format(i - 1), message)
  end
end

-- Tools -----------------------------------------------------------------------------------------------------------

local function tools(found, kind, value)
  if value == nil then return end
  if not request.is_list(value) then
    return note(found, "tools", "must be a list, got " .. shown(value), "invalid_type")
  end
  for i, tool in ipairs(value) do
    if not step(found) then return end
    local field = ("tools[%d]"):format(i - 1)
    if type(tool) ~= "table" then
      note(found, field, "must be an object, got " .. shown(tool), "invalid_type")
    elseif kind == "chat" and (tool.type == "function" or tool.type == nil) then
      local inner = tool["function"]
      if type(inner) ~= "table" then
        note(found, field .. ".function", "is missing", "missing")
      elseif not is_text(inner.name) or not inner.name:find("^[%w_.-]+$") then
        note(found, field .. ".function.name", "must be letters, digits and _ . -", "invalid_value")
      elseif inner.parameters ~= nil and type(inner.parameters) ~= "table" then
        note(found, field .. ".function.parameters", "must be an object", "invalid_type")
      end
    elseif kind ~= "chat" and not is_text(tool.name) and (kind == "messages" or tool.type == "function") then
      note(found, field .. ".name", "is missing", "missing")
    end
  end
end

-- Whole bodies ----------------------------------------------------------------------------------------------------

local function model(self, found, value)
  if not is_text(value) then
    return note(found, "model", value == nil and "is missing" or "must be a text that is not empty", "missing")
  end
  if #self.models == 0 then return end
  for _, pattern in ipairs(self.models) do
    if match.glob(pattern, value) then return end
  end
  note(found, "model", shown(value) .. " is not offered here", "model_not_found")
end

local function sampling(self, found, kind, body)
  boolean(found, "stream", body.stream)
  number(found, "temperature", body.temperature, 0, kind == "messages" and 1 or 2)
  number(found, "top_p", body.top_p, 0, 1)
  integer(found, "n", body.n, 1, 128)
  integer(found, "max_tokens", body.max_tokens, 1, self.max_tokens)
  integer(found, "max_completion_tokens", body.max_completion_tokens, 1, self.max_tokens)
  integer(found, "max_output_tokens", body.max_output_tokens, 1, self.max_tokens)
end

local CHECKS = {}

function CHECKS.chat(self, found, body)
  messages(self, found, "chat", body.messages)
  sampling(self, found, "chat", body)
  texts(found, "stop", body.stop)
  number(found, "presence_penalty", body.presence_penalty, -2, 2)
  number(found, "frequency_penalty", body.frequency_penalty, -2, 2)
  tools(found, "chat", body.tools)
end

function CHECKS.count(self, found, body)
  messages(self, found, "messages", body.messages)
  if body.system ~= nil and type(body.system) ~= "string" and not request.is_list(body.system) then
    note(found, "system", "must be a text or a list of parts, got " .. shown(body.system), "invalid_type")
  end
  tools(found, "messages", body.tools)
end

function CHECKS.messages(self, found, body)
  CHECKS.count(self, found, body)
  sampling(self, found, "messages", body)
  if body.max_tokens == nil then note(found, "max_tokens", "is missing", "missing") end
  if body.stop_sequences ~= nil and not request.is_list(body.stop_sequences) then
    note(found, "stop_sequences", "must be a list of texts, got " .. shown(body.stop_sequences), "invalid_type")
  end
  integer(found, "top_k", body.top_k, 0)
end

-- The input may be left out: a stored prompt, or the conversation, stands for it.
function CHECKS.responses(self, found, body)
  local input = body.input
  if input ~= nil and type(input) ~= "string" and not request.is_list(input) then
    note(found, "input", "must be a text or a list, got " .. shown(input), "invalid_type")
  elseif input == "" or (request.is_list(input) and #input == 0) then
    note(found, "input", "must not be empty", "empty")
  elseif type(input) == "table" then
    for i, item in ipairs(input) do
      if not step(found) then return end
      if type(item) ~= "table" then
        note(found, ("input[%d]"):format(i - 1), "must be an object, got " .. shown(item), "invalid_type")
      end
    end
  end
  sampling(self, found, "responses", body)
  tools(found, "responses", body.tools)
end

function CHECKS.embeddings(_, found, body)
  local input = body.input
  if input == nil then
    note(found, "input", "is missing", "missing")
  elseif input == "" or (request.is_list(input) and #input == 0) then
    note(found, "input", "must not be empty", "empty")
  elseif type(input) ~= "string" and not request.is_list(input) then
    note(found, "input", "must be a text or a list, got " .. shown(input), "invalid_type")
  end
  integer(found, "dimensions", body.dimensions, 1)
end

function CHECKS.completions(self, found, body)
  if body.prompt ~= nil and type(body.prompt) ~= "string" and not request.is_list(body.prompt) then
    note(found, "prompt", "must be a text or a list, got " .. shown(body.prompt), "invalid_type")
  end
  sampling(self, found, "completions", body)
  texts(found, "stop", body.stop)
end

-- A stored prompt of the Responses API has its own model.
local function needs_model(kind, body)
  return not (kind == "responses" and body.model == nil and type(body.prompt) == "table")
end

local function unread(self, call, why, too_long)
  if too_long and self.too_long == "pass" then return end
  return errors.respond(call, self.style, errors.of_fields(
    { { field = "", message = "the body cannot be checked: " .. why,
        code = too_long and "request_too_large" or "invalid_json" } },
    too_long and { category = "payload_too_large", status = 413 } or {}), "body " .. why)
end

return policy {
  name = "validate",
  doc = "refuse requests that cannot work, before anything is sent, naming every wrong field",

  params = {
    models       = param { {}, type = "list", of = "string",
                           doc = "globs of the models that are offered; none: all" },
    max_messages = param { 2048, min = 1, max = 10000, doc = "messages of a request" },
    max_tokens   = param { type = "integer", optional = true, min = 1,
                           doc = "most that max_tokens and its like may ask for" },
    max_image    = param { 20971520, min = 1024, doc = "bytes of an image within the request, encoded" },
    strict       = param { false, doc = "roles and types of parts that are not known are wrong" },
    too_long     = param { "pass", values = { "pass", "refuse" },
                           doc = "a body that is too long to be checked: left to the provider, or 413" },
    style        = param { "client", values = { "client", "openai", "anthropic", "kimi", "house" },
                           doc = "shape of the answer, as of standard_errors" },
  },

  on_request = function(self, call)
    local kind = request.kind(call)
    if not kind then return end
    local body, why, too_long = request.read(call, CUT)
    if body == nil then return unread(self, call, why, too_long) end
    local found = { count = 0, steps = 0 }
    if type(body) ~= "table" or request.is_list(body) and #body > 0 then
      note(found, "", "the body must be a JSON object", "invalid_type")
    else
      if needs_model(kind, body) then model(self, found, body.model) end
      CHECKS[kind](self, found, body)
    end
    if found.count == 0 then
      if found.steps > STEPS then return unread(self, call, "it has too many parts", true) end
      return
    end
    local wrong = {}
    for i = 1, math.min(found.count, SHOWN) do wrong[i] = found[i] end
    local failure = errors.of_fields(wrong, {})
    if found.count > SHOWN then
      failure.message = ("%s; and %d more"):format(failure.message, found.count - SHOWN)
    end
    return errors.respond(call, self.style, failure, ("%d wrong: %s"):format(found.count, wrong[1].field))
  end,
}
