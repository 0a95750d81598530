local function said(status, error, headers)
  return { status = status, body = { error = error }, headers = headers }
end

local LATER = "Requests to the Operation have exceeded token rate limit. Please retry after 7 seconds."
local FILTER = { code = "content_filter", status = 400, message = "The response was filtered",
                 innererror = { code = "ResponsibleAIPolicyViolation" } }

local function use(t)
  t:dialect("azure")
  t:use("retry", { max_attempts = 2, base = 0, cap = 60, jitter = "none", never = {} })
end

test("azure: codes", function(t)
  use(t)
  for _, case in ipairs {
    { said(404, { code = "DeploymentNotFound", message = "x" }), "not_found" },
    { said(404, { code = "404", message = "Resource not found" }), "not_found" },
    { said(400, FILTER), "content_policy" },
    { said(400, { code = "400", message = "x", innererror = { code = "ResponsibleAIPolicyViolation" } }),
      "content_policy" },
    { said(401, { code = "PermissionDenied", message = "The principal lacks the data action" }), "permission" },
    { said(401, { code = "401", message = "Access denied due to invalid subscription key" }), "auth" },
    { said(429, { code = "insufficient_quota", message = "You exceeded your current quota" }), "billing" },
    { { status = 403, body = { statusCode = 403,
        message = "Out of call volume quota. Quota will be replenished in 02:11:14." } }, "rate_limit" },
    { said(200, FILTER), "content_policy" },
  } do
    t:provider { case[1] }
    local r = t:call { model = "m" }
    t:eq(r.ledger[1].category, case[2], r.body)
    t:eq(r.upstream_calls, 1, r.body)
  end
end)

test("azure: a 429 is waited for as long as a header says, else as the message says", function(t)
  use(t)
  local body = { code = "429", message = LATER }
  t:provider { said(429, body, { ["retry-after"] = "3" }), { status = 200 } }
  t:eq(t:call({ model = "m" }).waited, 3)
  t:provider { said(429, body, { ["retry-after-ms"] = "1500", ["retry-after"] = "3" }), { status = 200 } }
  t:eq(t:call({ model = "m" }).waited, 1.5)
  t:provider { said(429, body), { status = 200 } }
  t:eq(t:call({ model = "m" }).waited, 7)
end)

test("azure: filter results before content are held back, and clients get OpenAI's errors", function(t)
  use(t)
  local first = { data = { choices = {}, prompt_filter_results = { { prompt_index = 0 } } } }
  t:provider { { sse = { first, { data = { error = { code = "429", message = "x" } } } } },
               { sse = { first, { data = { choices = { { delta = { content = "x" }, finish_reason = "stop" } } } },
                         "[DONE]" } } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, true)
  t:eq(r.upstream_calls, 2)
  t:provider { { curl = "reset" }, { curl = "reset" } }
  t:eq(t:call({ model = "m" }).json.error.type, "server_error")
end)
