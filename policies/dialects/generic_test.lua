local function use(t)
  t:dialect("generic")
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none", never = {} })
end

test("generic: errors of many shapes, also inside a 200", function(t)
  use(t)
  for _, case in ipairs {
    { 429, { code = "Throttling.RateQuota", message = "x", request_id = "r" }, "rate_limit", true },
    { 400, { code = "DataInspectionFailed", message = "x" }, "content_policy", false },
    { 500, { error = "insufficient balance" }, "billing", false },
    { 400, { errors = { { code = "insufficient_quota" } } }, "billing", false },
    { 401, { error = "invalid_token", error_description = "expired" }, "auth", false },
    { 422, { detail = { { loc = { "body" }, msg = "field required", type = "missing" } } }, "invalid_request", false },
    { 503, { message = "{\"error\":{\"code\":\"overloaded\"}}" }, "overloaded", true },
    { 200, { error = { type = "overloaded_error" } }, "overloaded", true },
    { 200, { errcode = -1, errmsg = "too many requests" }, "rate_limit", true },
    { 200, { error_code = 18, error_msg = "qps request limit" }, "unknown", false },
    { 200, { base_resp = { status_code = 1008, status_msg = "insufficient balance" } }, "billing", false },
  } do
    local step = { status = case[1], body = case[2] }
    t:provider { step, case[4] and { status = 200 } or nil }
    local r = t:call { model = "m" }
    t:eq(r.ledger[1].category, case[3], r.body)
    t:eq(r.upstream_calls, case[4] and 2 or 1, r.body)
  end
end)

test("generic: what only mentions errors is a success", function(t)
  use(t)
  for _, body in ipairs {
    '{"error":null,"errcode":0,"errmsg":"ok"}', '{"error":{},"data":[]}', '{"error":[ ]}', '{"error":false}',
    '{"error_code":0}', '{"base_resp":{"status_code":0,"status_msg":""}}', '{"text":"error: {\\"error\\":1}"}', "error",
    '{"errors_seen":3}', "",
  } do
    t:provider { { status = 200, body = body } }
    local r = t:call { model = "m" }
    t:eq(r.ok, true, body)
    t:eq(r.body, body)
  end
end)

test("generic: any stream passes, and one that the connection ended well has ended well", function(t)
  use(t)
  t:provider { { sse = { { data = { anything = 1 } }, { data = { more = 2 } } } } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, true)
  t:eq(r.truncated, false)
  t:provider { { sse = { { data = { errcode = 7, errmsg = "too many requests" } } } },
               { sse = { { data = { a = 1 } } } } }
  r = t:call { model = "m", stream = true }
  t:eq(r.ok, true)
  t:eq(r.upstream_calls, 2)
end)
