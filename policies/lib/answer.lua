--- Reads a provider's error out of whatever it came in, for dialects.
--
-- Providers, their gateways and the proxies in front of them do not agree on one shape. All of these are understood:
--
--   {"error": {"message", "type", "code"}}            OpenAI and most others; `code` a text, a number or null
--   {"type": "error", "error": {"type", "message"}}   Anthropic
--   {"type": "error", "code", "message"}              a stream of OpenAI's Responses API
--   {"response": {"error": {"code", "message"}}}      the same, when a response failed
--   {"error": "text"}, {"message": ..., "code": ...}  vLLM, Ollama, API gateways
--   {"detail": "text"}, {"detail": [{"msg": ...}]}    FastAPI
--   [{"error": {...}}], {"errors": [{...}]}           Google, collections
--   {"errcode", "errmsg"}, {"code", "msg"}            KIMI and relatives
--   an HTML page, a short plain text, a body that was cut, nothing at all

local answer = {}

local DEPTH = 4         -- of boxes in boxes
local MESSAGE = 1024    -- bytes of a message that are looked at
local PLAIN = 300       -- a longer text is a page, not a message

local function text_of(value)
  if type(value) == "string" then
    return value ~= "" and value or nil
  end
  if type(value) == "number" then
    local whole = math.tointeger(value)
    return whole and ("%d"):format(whole) or tostring(value)
  end
end

local function first(object, names)
  for i = 1, #names do
    local value = object[names[i]]
    local text = value ~= nil and text_of(value)
    if text then return text end
  end
end

local CODES = { "code", "errcode", "error_code" }
local MESSAGES = { "message", "msg", "errmsg", "error_msg", "Message", "error_description", "error", "detail" }
local BOXES = { "error", "errors", "response", "detail" }

-- The innermost object that is about the error.
local function unbox(object)
  for _ = 1, DEPTH do
    local inner
    if type(object[1]) == "table" then
      inner = object[1]
    else
      for _, name in ipairs(BOXES) do
        local value = object[name]
        if type(value) == "table" and (name ~= "response" or type(value.error) == "table") then
          inner = value
          break
        end
      end
    end
    if not inner then break end
    object = inner
  end
  return object
end

local function from_object(object)
  local inner = unbox(object)
  local kind = text_of(inner.type) or text_of(inner.__type)
  if kind == "error" then kind = nil end
  return {
    code = first(inner, CODES) or first(object, CODES),
    type = kind,
    state = text_of(inner.status),
    message = first(inner, MESSAGES) or first(object, MESSAGES),
  }
end

local function title_of(page)
  local head = page:sub(1, 4096)
  local from = head:lower():find("<title", 1, true)
  local start = from and head:find(">", from, true)
  local stop = start and head:lower():find("</title", start, true)
  local title = stop and head:sub(start + 1, stop - 1):gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")
  return title ~= "" and title or nil
end

--- What the answer says: { code, type, state, message, html }, each nil when it does not say. `state` is Google's name
--- of the error ("RESOURCE_EXHAUSTED"). Codes that are numbers come as texts.
function answer.read(a)
  local body = a.body
  local object = a:json()
  if type(object) == "table" then
    return from_object(object)
  end
  if body:find("^%s*<") then
    local title = title_of(body)
    return { html = true, message = title and "an HTML page: " .. title or "an HTML page" }
  end
  if body:find("^%s*[%[{]") then
    return { message = "an answer that is not whole JSON" }
  end
  local plain = body:match("^%s*([^%c]+)")
  return { message = #body <= PLAIN and plain or nil }
end

-- Statuses of proxies and CDNs that the built-in table knows only as "some 4xx" and "some 5xx".
local STATUSES = {
  [421] = { category = "network" },               -- misdirected: another connection may do
  [425] = { category = "network" },               -- too early: the same over a fresh connection
  [451] = { category = "permission" },            -- not in this country
  [499] = { category = "network" },               -- nginx: its client, an inner proxy, went away
  [520] = { category = "server" },                -- Cloudflare: the origin answered nonsense
  [521] = { category = "server" },                -- the origin is down
  [522] = { category = "timeout" },               -- no connection to the origin in time
  [523] = { category = "server" },                -- the origin cannot be reached
  [524] = { category = "timeout" },               -- connected, then no answer in time
  [525] = { category = "server", retryable = false }, -- TLS with the origin failed: does not pass by itself
  [526] = { category = "server", retryable = false }, -- the origin's certificate is not valid
  [527] = { category = "server" },
  [530] = { category = "server" },                -- Cloudflare cannot resolve the origin
  [598] = { category = "timeout" },               -- read timeout behind a proxy
  [599] = { category = "timeout" },               -- connect timeout behind a proxy
}

--- A better word for a status than the built-in table has, or nil.
function answer.by_status(status)
  return STATUSES[status]
end

-- What error texts say when neither code nor type does. In order: the more telling first. `unless`: statuses that say
-- it better. Only whole phrases that do not turn up in other errors.
local PHRASES = {
  { category = "billing", unless = { [401] = true, [404] = true },
    "insufficient balance", "insufficient_quota", "exceeded your current quota", "credit balance is too low",
    "check your plan and billing", "billing hard limit", "payment required", "free quota has been used up" },
  { category = "rate_limit", retryable = false, unless = { [401] = true, [404] = true }, -- larger than the limit itself
    "request too large for" },
  { category = "context_length", unless = { [401] = true, [404] = true, [429] = true, [503] = true, [529] = true },
    "maximum context length", "context_length_exceeded", "context length exceeded", "prompt is too long",
    "exceeded model token limit", "input token length too long", "input is too long for requested model",
    "exceeds the context window", "exceed context limit", "reduce the length of the messages" },
  { category = "content_policy", unless = { [401] = true, [404] = true, [429] = true, [503] = true, [529] = true },
    "content management policy", "content_filter", "content filtering policy", "content policy", "content_policy",
    "usage policy", "usage policies", "safety system", "responsibleaipolicy", "considered high risk" },
  { category = "overloaded", unless = { [401] = true, [404] = true },
    "overloaded", "at capacity", "no capacity", "high demand" },
  { category = "rate_limit", unless = { [401] = true, [404] = true, [503] = true, [529] = true },
    "rate limit", "rate_limit", "ratelimit", "too many requests" },
  { category = "auth", unless = { [404] = true, [429] = true, [503] = true, [529] = true },
    "invalid api key", "incorrect api key", "token has expired", "token is expired", "expired token", "jwt expired" },
}

--- What a message gives away, or nil. Statuses that are clear by themselves are left alone.
function answer.by_message(message, status)
  if not message then return nil end
  local words = message:sub(1, MESSAGE):lower()
  for _, row in ipairs(PHRASES) do
    if not row.unless[status] then
      for _, phrase in ipairs(row) do
        if words:find(phrase, 1, true) then return row end
      end
    end
  end
end

-- What a status means that stands inside an answer, as in a stream's {"error": {"code": 429}}: there the built-in table
-- has seen only the 200 around it.
local INNER = {
  ["400"] = "invalid_request", ["401"] = "auth", ["402"] = "billing", ["403"] = "permission", ["404"] = "not_found",
  ["408"] = "timeout", ["409"] = "conflict", ["413"] = "payload_too_large", ["422"] = "invalid_request",
  ["429"] = "rate_limit", ["500"] = "server", ["502"] = "server", ["503"] = "overloaded", ["504"] = "timeout",
  ["529"] = "overloaded",
}

local function lookup(codes, said)
  local row = said.code and codes[said.code:lower()] or said.type and codes[said.type:lower()]
    or said.state and codes[said.state:lower()]
  if row then
    return type(row) == "table" and row or { category = row }
  end
end

--- For `codes`: words like "server_error" and "api_error", which say no more than that something failed; any error
--- status says it better (503 and 529 overloaded, 504 timeout, 401 auth, 429 rate_limit).
answer.VAGUE = { category = "server", vague = true }

--- The whole way from an answer to what a dialect's `classify` returns; nil when there is nothing to add to the status.
--
-- codes  maps a code, type or state in small letters to a category, or to { category, retryable, fallback, ... }, or to
--        answer.VAGUE
-- weak   a set of types that say no more than "your request", which providers also put into answers whose status says
--        it better; they decide only when the status does not (2xx and 5xx)
--
-- In order: code, type, state; then the message; then a status inside a 200; then weak types; then the status.
function answer.classify(a, codes, weak)
  local said = answer.read(a)
  local status = a.status
  local row = lookup(codes, said)
  if not row then
    row = answer.by_message(said.message, status)
  elseif row.category == "rate_limit" then
    local guess = answer.by_message(said.message, status)
    if guess and guess.category == "rate_limit" then
      row = guess -- more than the limit itself in one request: waiting does not help
    end
  end
  if row and row.vague and status >= 400 then
    row = answer.by_status(status) or {}
  end
  if not row and status < 400 and INNER[said.code] then
    row = { category = INNER[said.code] }
  end
  if not row and (status < 400 or status >= 500) and weak[said.type and said.type:lower()] then
    row = { category = "invalid_request" }
  end
  row = row or answer.by_status(status) or {}
  if not (row.category or said.code or said.type or said.message) then
    return nil
  end
  return {
    category = row.category,
    code = said.code or said.type or said.state,
    message = said.message,
    retryable = row.retryable,
    fallback = row.fallback,
    refresh_token = row.refresh_token,
  }
end

return answer
