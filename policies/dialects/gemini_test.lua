local function said(status, state, message, details)
  return { status = status, body = { error = { code = status, message = message or "as it says", status = state,
                                               details = details } } }
end

local function info(reason) return { ["@type"] = "type.googleapis.com/google.rpc.ErrorInfo", reason = reason } end
local function wait(delay) return { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retryDelay = delay } end
local function quota(...)
  local violations = {}
  for i, id in ipairs { ... } do violations[i] = { quotaId = id } end
  return { ["@type"] = "type.googleapis.com/google.rpc.QuotaFailure", violations = violations }
end

local MINUTE, DAY = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "GenerateRequestsPerDayPerProjectPerModel"
local PLAN = "You exceeded your current quota, please check your plan and billing details."

local function use(t)
  t:dialect("gemini")
  t:route { client_dialect = "gemini" }
  t:use("retry", { max_attempts = 2, base = 0, cap = 60, jitter = "none", never = {} })
end

local function check(t, step, category, retried, code)
  t:provider { step, retried and { status = 200 } or nil }
  local r = t:call { model = "m" }
  local name = category .. " " .. tostring(code)
  t:eq(r.ledger[1].category, category, name)
  t:eq(r.upstream_calls, retried and 2 or 1, name)
  if code then t:eq(r.ledger[1].code, code, name) end
  return r
end

test("gemini: states and reasons", function(t)
  use(t)
  check(t, said(400, "INVALID_ARGUMENT"), "invalid_request", false, "INVALID_ARGUMENT")
  check(t, said(400, "INVALID_ARGUMENT", "API key not valid", { info "API_KEY_INVALID" }), "auth", false)
  check(t, said(400, "INVALID_ARGUMENT", "The input token count (2) exceeds the maximum number of tokens allowed (1)."),
        "context_length", false)
  check(t, said(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), "permission", false)
  check(t, said(403, "PERMISSION_DENIED"), "permission", false)
  check(t, said(403, "PERMISSION_DENIED", "x", { info "BILLING_DISABLED" }), "billing", false)
  check(t, said(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers."), "auth", false)
  check(t, said(404, "NOT_FOUND"), "not_found", false)
  check(t, said(500, "INTERNAL"), "server", true, "INTERNAL")
  check(t, said(503, "UNAVAILABLE", "The model is overloaded."), "overloaded", true)
  check(t, said(504, "DEADLINE_EXCEEDED"), "timeout", true)
  check(t, { status = 429, body = json.array { { error = { code = 429, status = "RESOURCE_EXHAUSTED" } } } },
        "rate_limit", true, "RESOURCE_EXHAUSTED")
end)

test("gemini: a quota of the minute passes, one of the day does not, and money is money", function(t)
  use(t)
  t:eq(check(t, said(429, "RESOURCE_EXHAUSTED", PLAN, { quota(MINUTE), wait "34s" }), "rate_limit", true).waited, 34)
  t:near(check(t, said(429, "RESOURCE_EXHAUSTED", PLAN, { wait "20.5s" }), "rate_limit", true).waited, 20.5, 0.001)
  local step = said(429, "RESOURCE_EXHAUSTED", PLAN, { quota(MINUTE), wait "34s" })
  step.headers = { ["retry-after"] = "2" }
  t:eq(check(t, step, "rate_limit", true).waited, 2)
  check(t, said(429, "RESOURCE_EXHAUSTED", PLAN, { quota(MINUTE, DAY), wait "12s" }), "rate_limit", false)
  check(t, said(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), "billing", false)
end)

test("gemini: a blocked prompt is an error, ratings are not", function(t)
  use(t)
  local r = check(t, { status = 200, body = { promptFeedback = { blockReason = "SAFETY" } } }, "content_policy", false,
                  "SAFETY")
  t:eq(r.status, 400)
  t:eq(r.json.error.status, "INVALID_ARGUMENT")
  local good = '{"candidates":[{"content":{"parts":[{"text":"{\\"error\\":1}"}]}}],'
    .. '"promptFeedback":{"safetyRatings":[]}}'
  t:provider { { status = 200, body = good } }
  t:eq(t:call({ model = "m" }).body, good)
end)

local function text(words, finish)
  return { data = { candidates = { { content = { parts = { { text = words } } }, finishReason = finish } } } }
end

test("gemini: streams", function(t)
  use(t)
  local usage = { data = { usageMetadata = { promptTokenCount = 3 } } }
  local busy = { data = { error = { code = 503, status = "UNAVAILABLE", message = "overloaded" } } }
  t:provider { { sse = { usage, busy } }, { sse = { usage, text "a", text("b", "STOP") } } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, true)
  t:eq(r.upstream_calls, 2)
  t:provider { { sse = { text "a", busy } } }
  r = t:call { model = "m", stream = true }
  t:eq(r.ok, false)
  t:eq(r.upstream_calls, 1)
  t:match(r.body, '"status":"UNAVAILABLE"')
  t:provider { { sse = { text "a" } } } -- ends without a finishReason
  r = t:call { model = "m", stream = true }
  t:eq(r.category, "network")
  t:match(r.body, 'data: {"error":{.*"status":"UNAVAILABLE".*}}\n\n$')
  t:provider { { sse = { { data = { promptFeedback = { blockReason = "SAFETY" } } } } } }
  t:eq(t:call({ model = "m", stream = true }).ledger[1].category, "content_policy")
end)

test("gemini: parry's own errors", function(t)
  use(t)
  t:provider { { curl = "timeout" }, { curl = "timeout" } }
  local r = t:call { model = "m" }
  t:eq(r.status, 504)
  t:eq(r.json.error.code, 504)
  t:eq(r.json.error.status, "DEADLINE_EXCEEDED")
end)
