local OK = { status = 200 }

-- cases: { name, step, category, code, retried }; a code of nil is not checked. Each step comes twice: for the attempt,
-- and for the one after it when the failure is said to pass.
local function check(t, cases)
  local steps = {}
  for i, case in ipairs(cases) do
    steps[2 * i - 1], steps[2 * i] = case[2], case[2]
  end
  t:dialect("openai")
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none", never = {} })
  t:provider(steps)
  for _, case in ipairs(cases) do
    local name, category, code, retried = case[1], case[3], case[4], case[5]
    local r = t:call { model = "m" }
    t:eq(r.ledger[1].category, category, name)
    if code ~= nil then t:eq(r.ledger[1].code, code, name) end
    t:eq(r.upstream_calls, retried and 2 or 1, name)
    t:eq(#r.faults, 0, name)
    if not retried then t:call { model = "m" } end -- takes the step that is left
  end
end

local function said(status, kind, code, message)
  return { status = status, body = { error = { message = message or "as it says", type = kind, param = json.null,
                                               code = code == nil and json.null or code } } }
end

test("codes and types of OpenAI", function(t)
  check(t, {
    { "quota", said(429, "insufficient_quota", "insufficient_quota"), "billing", "insufficient_quota", false },
    { "hard limit", said(400, "invalid_request_error", "billing_hard_limit_reached"), "billing", nil, false },
    { "rate", said(429, "requests", "rate_limit_exceeded"), "rate_limit", "rate_limit_exceeded", true },
    { "tokens", said(429, "tokens", nil), "rate_limit", "tokens", true },
    { "too large for the limit", said(429, "tokens", "rate_limit_exceeded", "Request too large for gpt-4o on tokens"),
      "rate_limit", nil, false },
    { "key", said(401, "invalid_request_error", "invalid_api_key"), "auth", "invalid_api_key", false },
    { "gone", said(401, "invalid_request_error", "account_deactivated"), "permission", nil, false },
    { "model", said(404, "invalid_request_error", "model_not_found"), "not_found", "model_not_found", false },
    { "context", said(400, "invalid_request_error", "context_length_exceeded"), "context_length", nil, false },
    { "policy", said(400, "image_generation_user_error", "content_policy_violation"), "content_policy", nil, false },
    { "filter", said(400, json.null, "content_filter"), "content_policy", nil, false },
    { "server", said(500, "server_error", nil), "server", "server_error", true },
    { "overload", said(503, "server_error", nil), "overloaded", "server_error", true },
    { "gateway timeout", said(504, "server_error", nil), "timeout", "server_error", true },
    { "slow down", said(503, "server_error", "slow_down"), "overloaded", "slow_down", true },
    { "country", said(403, "request_forbidden", "unsupported_country_region_territory"), "permission", nil, false },
    { "parameter", said(400, "invalid_request_error", nil), "invalid_request", "invalid_request_error", false },
    { "parameter with a code", said(400, "invalid_request_error", "unknown_parameter"), "invalid_request",
      "unknown_parameter", false },
    { "locked", said(409, "invalid_request_error", "conversation_locked"), "conflict", nil, true },
  })
end)

test("codes and types of its relatives", function(t)
  check(t, {
    { "Token360 key", said(401, "invalid_api_key", nil), "auth", "invalid_api_key", false },
    { "Token360 frozen", said(403, "api_key_frozen", nil), "permission", "api_key_frozen", false },
    { "Token360 model", said(403, "model_access_denied", nil), "permission", nil, false },
    { "Token360 balance", said(402, "insufficient_balance", nil), "billing", "insufficient_balance", false },
    { "Token360 balance, as 403", said(403, "insufficient_balance", nil), "billing", nil, false },
    { "Token360 rate", said(429, "rate_limit_error", nil), "rate_limit", nil, true },
    { "Token360 upstream", said(500, "api_error", nil), "server", nil, true },
    { "Token360 route", said(404, "not_found_error", nil), "not_found", nil, false },
    { "Moonshot quota", said(429, "exceeded_current_quota_error", nil), "billing", nil, false },
    { "Moonshot engine", said(429, "engine_overloaded_error", nil), "overloaded", nil, true },
    { "Moonshot rate", said(429, "rate_limit_reached_error", nil), "rate_limit", nil, true },
    { "Moonshot key", said(401, "invalid_authentication_error", nil), "auth", nil, false },
    { "Moonshot filter", said(400, "content_filter", nil), "content_policy", nil, false },
    { "Moonshot context", said(400, "invalid_request_error", nil, "Your request exceeded model token limit: 8192"),
      "context_length", nil, false },
    { "Azure deployment", said(404, nil, "DeploymentNotFound"), "not_found", nil, false },
    { "Azure capacity", said(503, nil, "NoCapacity"), "overloaded", nil, true },
    { "Azure, a status as code", said(429, nil, "429"), "rate_limit", "429", true },
    { "Google array", { status = 429, body = '[{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}]' },
      "rate_limit", "429", true },
    { "Google names its limits so", { status = 429, body = { error = { code = 429, status = "RESOURCE_EXHAUSTED",
      message = "You exceeded your current quota, please check your plan and billing details" } } },
      "rate_limit", nil, true },
    { "vLLM", { status = 400, body = { object = "error", type = "BadRequestError", code = 400,
      message = "This model's maximum context length is 4096 tokens" } }, "context_length", "400", false },
    { "Ollama", { status = 404, body = { error = "model 'x' not found" } }, "not_found", "", false },
    { "FastAPI text", { status = 401, body = { detail = "Not authenticated" } }, "auth", nil, false },
    { "FastAPI list", { status = 422, body = { detail = { { loc = { "body" }, msg = "needed", type = "missing" } } } },
      "invalid_request", "missing", false },
    { "list of errors", { status = 400, body = { errors = { { code = "context_length_exceeded", message = "x" } } } },
      "context_length", nil, false },
    { "error in an error", { status = 500, body = { error = { error = { type = "overloaded_error" } } } },
      "overloaded", "overloaded_error", true },
  })
end)

test("statuses that mislead", function(t)
  check(t, {
    { "429 that is billing", said(429, nil, nil, "You exceeded your current quota"), "billing",
      nil, false },
    { "403 that is billing", said(403, nil, nil, "Insufficient balance"), "billing", nil, false },
    { "400 that is overload", said(400, nil, nil, "The model is overloaded, wait"), "overloaded", nil, true },
    { "500 that is the request's fault", said(500, "invalid_request_error", nil), "invalid_request", nil, false },
    { "500 that is the prompt's length", said(500, nil, nil, "maximum context length is 8192"), "context_length", nil,
      false },
    { "400 that is a rate limit", said(400, nil, nil, "Rate limit reached for model"), "rate_limit", nil, true },
    { "400 that is an expired token", said(400, nil, nil, "JWT expired"), "auth", nil, false },
    { "500 stays what it is, whatever number is inside", said(500, nil, 429), "server", "429", true },
    { "401 stays what it is", said(401, "invalid_request_error", nil, "mind the rate limit"), "auth", nil, false },
    { "404 stays what it is", said(404, nil, nil, "overloaded"), "not_found", nil, false },
  })
end)

test("an error inside a 200", function(t)
  check(t, {
    { "with a type", said(200, "server_error", nil), "server", "server_error", true },
    { "with a status", said(200, nil, 429), "rate_limit", "429", true },
    { "with a status as text", said(200, nil, "503"), "overloaded", "503", true },
    { "the request's fault", said(200, "invalid_request_error", nil), "invalid_request", nil, false },
    { "that says nothing", said(200, nil, nil), "unknown", "", false },
    { "as a text", { status = 200, body = { error = "too many requests" } }, "rate_limit", nil, true },
  })
end)

test("a 200 that only mentions the word is a success", function(t)
  t:dialect("openai")
  for _, body in ipairs {
    '{"id":"x","error":null,"choices":[]}',
    '{"id":"x","error":"","choices":[]}',
    '{"id":"x","error":false,"choices":[]}',
    '{"choices":[{"message":{"content":"error: {\\"error\\":{}}"}}]}',
    'plain text',
    '{"error":{"mess',
  } do
    t:provider { { status = 200, body = body } }
    local r = t:call { model = "m" }
    t:eq(r.ok, true, body)
    t:eq(r.body, body)
  end
end)

test("pages, scraps and silence", function(t)
  local page = "<!DOCTYPE html>\n<html><head><TITLE>\n  502  Bad Gateway </TITLE></head><body>x</body></html>"
  check(t, {
    { "a page", { status = 502, body = page }, "server", "", true },
    { "a page of a firewall", { status = 403, body = page }, "permission", "", false },
    { "nothing", { status = 500, body = "" }, "server", "", true },
    { "half a JSON", { status = 503, body = '{"error":{"mess' }, "overloaded", "", true },
    { "plain text", { status = 503, body = "upstream connect error or disconnect/reset before headers" }, "overloaded",
      "", true },
    { "a number", { status = 500, body = "42" }, "server", "", true },
    { "null", { status = 500, body = "null" }, "server", "", true },
    { "an empty object", { status = 429, body = "{}" }, "rate_limit", "", true },
    { "an empty list", { status = 429, body = "[]" }, "rate_limit", "", true },
    { "no title", { status = 500, body = "<html>" }, "server", "", true },
    { "bytes", { status = 500, body = "\0\1\255\254" }, "server", "", true },
  })
end)

test("a page passes to the client as it came", function(t)
  t:dialect("openai")
  local page = "<html><head><title>\n 502  Bad Gateway</title>"
  t:provider { { status = 502, body = page, headers = { ["content-type"] = "text/html" } } }
  local r = t:call { model = "m" }
  t:eq(r.status, 502)
  t:eq(r.body, page)
  t:eq(r.headers["content-type"], "text/html")
end)

test("statuses of proxies and CDNs", function(t)
  check(t, {
    { "520", { status = 520 }, "server", nil, true },
    { "521", { status = 521 }, "server", nil, true },
    { "522", { status = 522 }, "timeout", nil, true },
    { "523", { status = 523 }, "server", nil, true },
    { "524", { status = 524 }, "timeout", nil, true },
    { "525", { status = 525 }, "server", nil, false },
    { "526", { status = 526 }, "server", nil, false },
    { "527", { status = 527 }, "server", nil, true },
    { "530", { status = 530 }, "server", nil, true },
    { "451", { status = 451 }, "permission", nil, false },
    { "418", { status = 418 }, "invalid_request", nil, false },
    { "507", { status = 507 }, "server", nil, true },
  })
end)

-- Streams ----------------------------------------------------------------------------------------------------------

local function delta(fields, finish)
  return { data = { choices = { { index = 0, delta = fields, finish_reason = finish or json.null } } } }
end

local BOOM = { data = { error = { message = "boom", type = "server_error" } } }

-- Is a failure after these events hidden from the client?
local function recovers(t, events, note)
  events[#events + 1] = BOOM
  t:provider { { sse = events }, { sse = { delta { content = "good" }, delta({}, "stop"), "[DONE]" } } }
  local r = t:call { model = "m", stream = true }
  if r.upstream_calls == 1 then t:call { model = "m", stream = true } end
  t:eq(r.ok, r.upstream_calls == 2, note)
  return r.upstream_calls == 2
end

local function streaming(t)
  t:dialect("openai")
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
end

test("streams: what the client can do without is held back", function(t)
  streaming(t)
  t:ok(recovers(t, {}), "nothing")
  t:ok(recovers(t, { delta { role = "assistant", content = "" } }), "role")
  t:ok(recovers(t, { delta { role = "assistant", content = json.null, refusal = json.null } }), "role and nulls")
  t:ok(recovers(t, { { data = '{"choices":[],"prompt_filter_results":[{"x":1}]}' } }), "Azure's filter results")
  t:ok(recovers(t, { { data = '{"choices":[],"usage":{"total_tokens":3}}' } }), "usage")
  t:ok(recovers(t, { { event = "response.created", data = { type = "response.created", response = { id = "r" } } },
                     { event = "response.in_progress", data = { type = "response.in_progress" } },
                     { event = "response.output_item.added", data = { type = "response.output_item.added",
                       item = { type = "message" } } } }), "Responses")
end)

test("streams: content commits", function(t)
  streaming(t)
  t:ok(not recovers(t, { delta { content = "x" } }), "text")
  t:ok(not recovers(t, { delta { role = "assistant", content = "x" } }), "text with the role")
  t:ok(not recovers(t, { delta { reasoning_content = "x" } }), "reasoning")
  t:ok(not recovers(t, { delta { refusal = "x" } }), "refusal")
  t:ok(not recovers(t, { delta { tool_calls = { { index = 0, ["function"] = { name = "f", arguments = "" } } } } }),
       "tool call")
  t:ok(not recovers(t, { { data = { choices = { { text = "x", index = 0 } } } } }), "completions")
  t:ok(not recovers(t, { { event = "response.output_text.delta", data = { delta = "x" } } }), "Responses text")
  t:ok(not recovers(t, { { data = { type = "response.function_call_arguments.delta", delta = "{" } } }),
       "Responses call")
  t:ok(not recovers(t, { { event = "response.reasoning_summary_text.delta", data = { delta = "x" } } }),
       "Responses summary")
end)

test("streams: ends", function(t)
  t:dialect("openai")
  local ends = {
    done = { delta { content = "x" }, "[DONE]" },
    finish = { delta { content = "x" }, delta({}, "stop") }, -- some end without [DONE]
    empty = { delta({ role = "assistant", content = "" }, "stop"), "[DONE]" },
    responses = { { event = "response.output_text.delta", data = { delta = "x" } },
                  { event = "response.completed", data = { response = { error = json.null } } } },
    incomplete = { { event = "response.output_text.delta", data = { delta = "x" } },
                   { event = "response.incomplete", data = { type = "response.incomplete" } } },
  }
  for name, events in pairs(ends) do
    t:provider { { sse = events } }
    local r = t:call { model = "m", stream = true }
    t:eq(r.ok, true, name)
    t:eq(r.truncated, false, name)
  end
end)

test("streams: one that just stops is a failure, told as an event", function(t)
  t:dialect("openai")
  t:provider { { sse = { delta { content = "x" } } } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, false)
  t:eq(r.category, "network")
  t:match(r.body, 'data: {"error":{.*stream_unterminated.*}}\n\n$')
end)

test("streams: a client of the Responses API is told by an event of its own", function(t)
  t:dialect("openai")
  t:provider { { sse = { { type = "response.output_text.delta", delta = "x" } } } }
  local r = t:call { model = "m", stream = true, path = "/v1/responses" }
  t:eq(r.ok, false)
  local name, data = r.body:match("event: (%a+)\ndata: ([^\n]+)\n\n$")
  t:eq(name, "error")
  local event = json.decode(data)
  t:eq(event.type, "error")
  t:eq(event.code, "stream_unterminated")
  t:eq(event.error.code, "stream_unterminated") -- what the SDKs look for
  t:eq(event.message, event.error.message)
end)

test("streams: data that is no JSON is a failure, and empty data is none", function(t)
  t:dialect("openai")
  t:provider { { sse = { delta { content = "x" }, "{half" } } }
  t:provider { { sse = { delta { content = "x" }, "", "[DONE]" } } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.category, "server")
  t:match(r.body, "stream_malformed")
  t:eq(t:call { model = "m", stream = true }.ok, true)
end)

test("streams: errors in their data say what they are", function(t)
  t:dialect("openai")
  local errors = {
    rate_limit = { data = { error = { message = "x", code = 429 } } },
    billing = { event = "error", data = { type = "error", code = "insufficient_quota", message = "x" } },
    server = { event = "response.failed", data = { type = "response.failed", response = { status = "failed",
                 error = { code = "server_error", message = "x" } } } },
  }
  for category, event in pairs(errors) do
    t:provider { { sse = { event } } }
    local r = t:call { model = "m", stream = true }
    t:eq(r.ledger[1].category, category)
  end
end)

-- Final errors -----------------------------------------------------------------------------------------------------

test("render: an error of parry's own, as OpenAI's SDKs read it", function(t)
  t:dialect("openai")
  t:use("circuit_breaker", { failures = 1, cooldown = 30, count = { "server" } })
  t:provider { { status = 500 } }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.headers["content-type"], "application/json")
  t:eq(r.json.error.type, "service_unavailable_error")
  t:eq(r.json.error.code, "circuit_open")
  t:match(r.json.error.message, "%(try again in 30 s%)$")
  t:match(r.body, '"param":null')
end)

test("render: a failure without an answer", function(t)
  t:dialect("openai")
  t:provider { { curl = "connect" } }
  local r = t:call { model = "m" }
  t:eq(r.status, 502)
  t:eq(r.json.error.type, "server_error")
  t:ok(#r.json.error.message > 0)
end)

test("render: an error inside a 200 is no 200 to the client", function(t)
  t:dialect("openai")
  t:provider { said(200, "rate_limit_error", nil, "slow down, please") }
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.json.error.message, "slow down, please")
  t:eq(r.json.error.code, "rate_limit_error")
end)

test("the provider's own error passes as it came", function(t)
  t:dialect("openai")
  local body = '{"error": {"message": "no",   "code": "model_not_found"}}'
  t:provider { { status = 404, body = body, headers = { ["x-request-id"] = "abc" } } }
  local r = t:call { model = "m" }
  t:eq(r.body, body)
  t:eq(r.headers["x-request-id"], "abc")
end)

test("a good answer passes byte for byte", function(t)
  t:dialect("openai")
  local body = '{ "id":"x" ,\n "choices":[ ],"usage": {"total_tokens":1e2} }'
  t:provider { { status = 200, body = body }, OK }
  t:eq(t:call({ model = "m" }).body, body)
end)

-- LiteLLM #42432 from the other side: {"type": "api_error"} with a 400, 401 or 429 was taken for a failing server, so a
-- caller's mistake tripped the breaker and an expired token was not renewed.
test("a type that says no more than \"failed\" does not outweigh a clear status", function(t)
  t:dialect("openai")
  local expected = { [400] = "invalid_request", [401] = "auth", [429] = "rate_limit", [503] = "overloaded",
                     [500] = "server" }
  for status, category in pairs(expected) do
    for _, kind in ipairs { "api_error", "server_error" } do
      t:provider { said(status, kind, nil, "failed") }
      t:eq(t:call({ model = "m" }).category, category, kind .. " " .. status)
    end
  end
end)
