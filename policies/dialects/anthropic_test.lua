local BODY = { model = "claude", max_tokens = 10, messages = { { role = "user", content = "hello" } } }

-- A call as Anthropic's clients make it.
local function call(t, stream)
  local body = { stream = stream or nil }
  for name, value in pairs(BODY) do body[name] = value end
  return t:call { path = "/v1/messages", body = body, headers = { ["anthropic-version"] = "2023-06-01" } }
end

local function use(t, attempts)
  t:dialect("anthropic")
  t:use("retry", { max_attempts = attempts, base = 0, cap = 1, jitter = "none", never = {} })
end

local function said(status, kind, message)
  return { status = status, body = { type = "error", error = { type = kind, message = message or "as it says" },
                                     request_id = "req_1" } }
end

test("types and statuses", function(t)
  use(t, 2)
  local cases = { -- name, step, category, retried
    { "key", said(401, "authentication_error"), "auth", false },
    { "permission", said(403, "permission_error"), "permission", false },
    { "billing", said(402, "billing_error"), "billing", false },
    { "model", said(404, "not_found_error"), "not_found", false },
    { "too large", said(413, "request_too_large"), "payload_too_large", false },
    { "rate", said(429, "rate_limit_error"), "rate_limit", true },
    { "server", said(500, "api_error"), "server", true },
    { "unavailable", said(503, "api_error"), "overloaded", true },
    { "timeout", said(504, "timeout_error"), "timeout", true },
    { "overload", said(529, "overloaded_error"), "overloaded", true },
    { "request", said(400, "invalid_request_error"), "invalid_request", false },
    { "prompt", said(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
      "context_length", false },
    { "balance", said(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
      "billing", false },
    { "filter", said(400, "invalid_request_error", "Output blocked by content filtering policy"), "content_policy",
      false },
    { "AWS", { status = 429, body = { __type = "ThrottlingException", message = "Too many" } }, "rate_limit", true },
    { "page", { status = 522, body = "<html><title>522</title></html>" }, "timeout", true },
    { "no body", { status = 529, body = "" }, "overloaded", true },
    { "error in a 200", said(200, "overloaded_error"), "overloaded", true },
    { "status that misleads", said(500, "overloaded_error"), "overloaded", true },
  }
  local steps = {} -- each comes twice: for the attempt, and for the one after it when the failure is said to pass
  for i, case in ipairs(cases) do
    steps[2 * i - 1], steps[2 * i] = case[2], case[2]
  end
  t:provider(steps)
  for _, case in ipairs(cases) do
    local r = call(t)
    t:eq(r.ledger[1].category, case[3], case[1])
    t:eq(r.upstream_calls, case[4] and 2 or 1, case[1])
    if not case[4] then call(t) end -- takes the step that is left
  end
end)

-- Streams ----------------------------------------------------------------------------------------------------------

local function event(kind, fields)
  local data = { type = kind }
  for name, value in pairs(fields or {}) do data[name] = value end
  return { event = kind, data = data }
end

local START = event("message_start", { message = { id = "m", content = {} } })
local BLOCK = event("content_block_start", { index = 0, content_block = { type = "text", text = "" } })
local TEXT = event("content_block_delta", { index = 0, delta = { type = "text_delta", text = "good" } })
local FINISH = event("message_delta", { delta = { stop_reason = "end_turn" } })
local STOP = event("message_stop")
local OVERLOADED = event("error", { error = { type = "overloaded_error", message = "Overloaded" } })

test("streams: an error before the content recovers, unseen", function(t)
  use(t, 2)
  t:provider {
    { sse = { START, event("ping"), BLOCK, OVERLOADED } },
    { sse = { START, BLOCK, TEXT, event("content_block_stop", { index = 0 }), FINISH, STOP } },
  }
  local r = call(t, true)
  t:eq(r.ok, true)
  t:eq(r.upstream_calls, 2)
  t:eq(r.ledger[1].category, "overloaded")
  t:match(r.body, "good")
  t:ok(not r.body:find("verloaded", 1, true))
end)

test("streams: after the content an error is passed on, and ends the call", function(t)
  use(t, 2)
  t:provider { { sse = { START, BLOCK, TEXT, OVERLOADED } } }
  local r = call(t, true)
  t:eq(r.ok, false)
  t:eq(r.upstream_calls, 1)
  t:eq(r.category, "overloaded")
  t:match(r.body, "overloaded_error")
end)

test("streams: every kind of content commits", function(t)
  use(t, 2)
  for _, delta in ipairs {
    { type = "text_delta", text = "x" }, { type = "thinking_delta", thinking = "x" },
    { type = "input_json_delta", partial_json = "{" }, { type = "signature_delta", signature = "x" },
  } do
    t:provider { { sse = { START, event("content_block_delta", { index = 0, delta = delta }), OVERLOADED } } }
    t:eq(call(t, true).upstream_calls, 1, delta.type)
  end
end)

test("streams: an event that is new to us passes", function(t)
  use(t, 2)
  t:provider { { sse = { START, event("content_block_hologram", { light = 1 }), OVERLOADED } } }
  local r = call(t, true)
  t:eq(r.upstream_calls, 1)
  t:match(r.body, "hologram")
end)

test("streams: an empty answer is an answer", function(t)
  use(t, 2)
  t:provider { { sse = { START, FINISH, STOP } } }
  t:eq(call(t, true).ok, true)
end)

test("streams: a stop reason is the end, even when message_stop is missing", function(t)
  use(t, 1)
  t:provider { { sse = { START, BLOCK, TEXT, FINISH } } }
  t:eq(call(t, true).ok, true)
end)

test("streams: one that is cut ends with an error event", function(t)
  use(t, 1)
  t:provider { { sse = { START, BLOCK, TEXT }, cut = true } }
  local r = call(t, true)
  t:eq(r.ok, false)
  t:eq(r.truncated, false)
  t:match(r.body, "\n\nevent: error\ndata: {.*\"type\":\"error\".*}\n\n$")
end)

-- Final errors -----------------------------------------------------------------------------------------------------

test("render: an error of parry's own, as Anthropic's SDKs read it", function(t)
  t:dialect("anthropic")
  t:use("circuit_breaker", { failures = 1, cooldown = 30, count = { "overloaded" } })
  t:provider { { status = 529 } }
  call(t)
  local r = call(t)
  t:eq(r.status, 503)
  t:eq(r.headers["retry-after"], "30")
  t:eq(r.json.type, "error")
  t:eq(r.json.error.type, "overloaded_error")
  t:match(r.json.error.message, "try again in 30 s")
  t:eq(r.json.request_id, r.headers["parry-call-id"])
end)

test("render: no connection", function(t)
  t:dialect("anthropic")
  t:provider { { curl = "connect" } }
  local r = call(t)
  t:eq(r.status, 502)
  t:eq(r.json.error.type, "api_error")
end)

test("the provider's own error passes as it came", function(t)
  t:dialect("anthropic")
  t:provider { said(400, "invalid_request_error", "max_tokens: too large") }
  local r = call(t)
  t:eq(r.json.request_id, "req_1")
  t:eq(r.json.error.message, "max_tokens: too large")
end)
