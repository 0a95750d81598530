--- Says what an error answer is, for dialects: what the body tells (read in C, see `answer_error` in the annotations),
--- looked up in the tables of a dialect and of the provider's family, then guessed from its words.

local providers = require "lib.providers"

local answer = {}

local HOUR = 3600 -- a limit that says it opens later than this is not waited for

--- What the answer says: { code, type, state, quota, message, wait, html, [1] ... }, each nil when it does not say;
--- the annotations of `answer_error` describe them.
function answer.read(a)
  local said = a:error()
  if said.html then
    said.message = said.message and "an HTML page: " .. said.message or "an HTML page"
  elseif said.cut and not (said.message or said[1]) then
    said.message = "an answer that is not whole JSON"
  end
  if not said[1] then
    local kind = a:header("x-amzn-errortype") -- AWS: "ThrottlingException:http://internal..."
    said.type = kind and kind:match("^[%w.]+")
    said[1] = said.type and said.type:lower()
  end
  return said
end

-- Statuses of proxies and CDNs that the built-in table knows only as "some 4xx" and "some 5xx".
local STATUSES = {
  [410] = { category = "not_found" },             -- a model that was withdrawn
  [421] = { category = "network" },               -- misdirected: another connection may do
  [424] = { category = "server" },                -- Azure: what the model depends on failed
  [425] = { category = "network" },               -- too early: the same over a fresh connection
  [451] = { category = "permission" },            -- not in this country
  [498] = { category = "overloaded" },            -- Groq: no room in this tier
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
local CLEAR = { [401] = true, [404] = true }
local CLEAR_OR_BUSY = { [401] = true, [404] = true, [429] = true, [503] = true, [529] = true }

local PHRASES = {
  { category = "billing", -- whatever the status: some say 401 to an account without money
    "insufficient balance", "insufficient account balance", "insufficient_quota", "insufficient credits",
    "credit balance is too low", "credit limit exceeded", "balance is insufficient",
    "not enough balance", "balance is not enough", "quota is not enough", "any credits yet", "credits are depleted",
    "billing hard limit", "billing to be enabled", "check your billing details",
    "payment required", "free quota has been used up", "free trial quota", "overdue balance", "overdue payment",
    "bill is overdue", "in arrears", "budget has been exceeded", "reached your specified api usage limits",
    "pay past invoices", "spending limit", "used all available credits", "more credits", "included credits",
    "credits expired", "余额不足", "欠费", "额度不足" },
  { category = "billing", unless = CLEAR, soft = true, -- Google says so of any limit
    "exceeded your current quota", "check your plan and billing" },
  { category = "rate_limit", retryable = false, unless = CLEAR, -- larger than the limit itself
    "request too large for" },
  { category = "context_length", unless = CLEAR_OR_BUSY,
    "maximum context length", "context_length_exceeded", "context length exceeded", "prompt is too long",
    "exceeded model token limit", "input token length too long", "input is too long for requested model",
    "exceeds the context window", "exceed context limit", "reduce the length of the messages",
    "exceeds the maximum number of tokens", "range of input length", "prompt exceeds max length",
    "available context size", "inputs` must have less than" },
  { category = "content_policy", unless = CLEAR_OR_BUSY,
    "content management policy", "content_filter", "content filtering policy", "content policy", "content_policy",
    "usage policy", "usage policies", "safety system", "responsibleaipolicy", "considered high risk",
    "your input was flagged", "inappropriate content", "unsafe or sensitive", "contain sensitive information",
    "for safety reasons" },
  { category = "overloaded", unless = CLEAR,
    "overloaded", "at capacity", "no capacity", "capacity exceeded", "high demand", "high load", "too busy",
    "server busy", "not ready for inference", "high traffic", "capacity temporarily", "currently loading",
    "负载已饱和" },
  { category = "rate_limit", unless = { [401] = true, [404] = true, [503] = true, [529] = true },
    "rate limit", "rate_limit", "ratelimit", "rate-limit", "too many requests", "call volume quota",
    "error code: 1015" },
  { category = "auth", unless = { [404] = true, [429] = true, [503] = true, [529] = true },
    "invalid api key", "incorrect api key", "api key not valid", "api key expired", "token has expired",
    "token is expired", "access token expired", "expired token", "jwt expired", "in the request is expired",
    "unregistered callers", "access token invalid" },
  { category = "invalid_request", unless = { [401] = true, [403] = true, [404] = true, [429] = true, [503] = true,
                                             [529] = true }, -- for those who say 500 to it
    "unknown parameter", "unsupported parameter", "missing required parameter", "unrecognized request argument",
    "is a required property", "failed to deserialize" },
}

local ALL = providers.flat(PHRASES)

local function by_phrases(a, words, all)
  local status, at = a.status, 1
  while true do
    at = a:mentions(words, all.phrases, at)
    local row = at and all.owners[at]
    if not row or not (row.unless and row.unless[status]) then return row end
    at = at + 1
  end
end

--- What the words of a message give away, or nil. Statuses that are clear by themselves are left alone.
function answer.by_words(a, words)
  return by_phrases(a, words, ALL)
end

-- Limits on hours, days and more.
local LONG = { "per day", "per-day", "perday", "byday", "daily", "tpd", "rpd", "per month", "/ month", "monthly",
               "weekly", "per hour", "86400s", "be replenished in" }

-- In Google's names of quotas and metrics, and a quota of nothing at all ("limit: 0, model: ..."): what a project has
-- of all that its plan leaves out. Waiting helps neither, whatever the retryDelay beside it says.
local CLOSED = { "perday", "_per_day", "limit: 0,", "limit: 0\n" }

-- What a status means that stands inside an answer, as in a stream's {"error": {"code": 429}}: there the built-in table
-- has seen only the 200 around it.
local INNER = {
  ["400"] = "invalid_request", ["401"] = "auth", ["402"] = "billing", ["403"] = "permission", ["404"] = "not_found",
  ["408"] = "timeout", ["409"] = "conflict", ["413"] = "payload_too_large", ["422"] = "invalid_request",
  ["429"] = "rate_limit", ["500"] = "server", ["502"] = "server", ["503"] = "overloaded", ["504"] = "timeout",
  ["529"] = "overloaded",
}

local function find(codes, word)
  local row = codes[word]
  if row == nil then
    local dot = word:find(".", 2, true)
    row = dot and codes[word:sub(1, dot - 1)]
  end
  if row then return type(row) == "table" and row or { category = row } end
end

-- A word like "server_error" gives way to one that says more.
local function lookup(codes, said)
  local vague
  for i = 1, #said do
    local row = find(codes, said[i])
    if row and not row.vague then return row end
    vague = vague or row
  end
  return vague
end

--- For `codes`: words like "server_error" and "api_error", which say no more than that something failed; any error
--- status says it better (503 and 529 overloaded, 504 timeout, 401 auth, 429 rate_limit).
answer.VAGUE = { category = "server", vague = true }

-- By what stands in tables; second result: it is the family's word, which is not doubted.
local function by_tables(codes, family, said)
  local row = family and lookup(family.codes, said)
  if row then return row, true end
  return lookup(codes, said), false
end

local function refine(a, row, words)
  local guess = by_phrases(a, words, ALL)
  if not guess or (guess.soft and row and row.sure) then return row end
  if not row or row.vague then return guess end
  -- more than the limit itself in one request; an engine that is busy; money
  local more = guess.category == "rate_limit" or guess.category == "overloaded" or guess.category == "billing"
  return more and guess or row
end

local function by_all(a, said, codes, weak, family)
  local status, words = a.status, said.message
  local row, sure = by_tables(codes, family, said)
  if words and family and family.phrases and (not row or row.category == "rate_limit") then
    local guess = by_phrases(a, words, family.phrases)
    if guess then row, sure = guess, true end
  end
  if words and not sure and (not row or row.vague or row.category == "rate_limit") then
    row = refine(a, row, words)
  end
  if row and row.vague and status >= 400 then
    row = STATUSES[status] or {}
  end
  if row then return row end
  if status < 400 and INNER[said.code] then return { category = INNER[said.code] } end
  if (status < 400 or status >= 500) and weak[said.type and said.type:lower()] then
    return { category = "invalid_request" }
  end
  return STATUSES[status] or {}
end

-- When to come back, where no header says so, and whether to.
local function timing(a, said, row)
  local retryable, length = row.retryable, a.retry_after
  local wait = not length and said.wait or nil
  if retryable == nil and (row.category or a.category) == "rate_limit" then
    length = length or wait
    local long = length and length > HOUR
    if not length and said.message then long = a:mentions(said.message, LONG) end
    if long then retryable = false end
  end
  if said.quota and a:mentions(said.quota, CLOSED)
    or said.state and said.message and a:mentions(said.message, CLOSED) then
    retryable = false -- Google's retryDelay is about the minute even when the day is used up
  end
  return retryable, wait
end

local BUSY = { rate_limit = true, overloaded = true }

--- The whole way from an answer to what a dialect's `classify` returns; nil when there is nothing to add to the status.
--
-- codes   maps a code, type, reason or state in small letters to a category, or to { category, retryable, fallback,
--         refresh_token }, or to answer.VAGUE; `sure`: talk of quotas in the message does not make it a matter of money
-- weak    a set of types that say no more than "your request", which providers also put into answers whose status says
--         it better; they decide only when the status does not (2xx and 5xx)
-- family  one of lib/providers.lua; nil: by the provider's name; false: none
-- said    what `answer.read` gave, if it was asked already
--
-- In order: the family's tables and words; code, inner, type, reason, state; then the message; then a status inside a
-- 200; then weak types; then the status.
function answer.classify(a, codes, weak, family, said)
  said = said or answer.read(a)
  if not (said[1] or said.message) then return STATUSES[a.status] end
  if family == nil then family = providers.of(a.provider) end
  local row = by_all(a, said, codes, weak, family)
  local retryable, wait = row.retryable, nil
  if BUSY[row.category or a.category] then
    retryable, wait = timing(a, said, row)
  end
  return {
    category = row.category,
    code = said.code or said.type or said.state,
    message = said.message,
    retryable = retryable,
    retry_after = wait,
    fallback = row.fallback,
    refresh_token = row.refresh_token,
  }
end

return answer
