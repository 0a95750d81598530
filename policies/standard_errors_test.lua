local TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

local function standard(t, more)
  local params = { style = "house", status = {}, pass_messages = false, pass_codes = false, messages = {},
      longest = 300 }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("standard_errors", params)
end

local function failing(status, error)
  return { { status = status, headers = { ["x-internal"] = "host-7" }, body = { error = error } } }
end

test("a provider's error in the house's shape, with every field", function(t)
  standard(t)
  t:provider(failing(500, { message = "boom at /srv/app.py:7", type = "server_error", code = "E77" }))
  local r = t:call { model = "m", path = "/v1/chat/completions", headers = { traceparent = TRACE } }
  t:eq(r.status, 500)
  t:eq(r.headers["content-type"], "application/json")
  t:eq(r.headers["x-internal"], nil)
  t:eq(r.json.code, "server")
  t:eq(r.json.statusCode, 500)
  t:eq(r.json.requestId, r.id)
  t:eq(r.json.timestamp, "2026-01-01T00:00:00.000Z")
  t:eq(#r.json.details, 0)
  t:match(r.body, '"details":%[%]')
  t:eq(r.json.path, "/v1/chat/completions")
  t:eq(r.json.method, "POST")
  t:eq(r.json.traceId, "4bf92f3577b34da6a3ce929d0e0e4736")
  t:ok(not r.body:find("boom"))
  t:ok(not r.body:find("E77"))
  t:eq(r.category, "server")
end)

test("without a trace, or with a broken one, traceId is null", function(t)
  standard(t)
  for _, header in ipairs { "", "x", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-12-34-01" } do
    t:provider(failing(500, { message = "x" }))
    t:match(t:call({ model = "m", headers = { traceparent = header } }).body, '"traceId":null')
  end
end)

test("as OpenAI's and Anthropic's clients expect it", function(t)
  standard(t, { style = "client" })
  t:provider(failing(429, { message = "slow down, org-42", code = "rate_limit_exceeded" }))
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.json.error.type, "rate_limit_error")
  t:eq(r.json.error.code, "rate_limit")
  t:ok(not r.body:find("org%-42"))
  t:route { client_dialect = "anthropic" }
  t:provider("p", { { status = 529, body = { type = "error", error = { type = "overloaded_error", message = "x" } } },
                    dialect = "anthropic" })
  r = t:call { model = "m" }
  t:eq(r.status, 529)
  t:eq(r.json.type, "error")
  t:eq(r.json.error.type, "overloaded_error")
  t:eq(r.json.request_id, r.id)
end)

test("an error inside a 200 is no 200", function(t)
  standard(t)
  t:provider { { body = { errcode = -2006, errmsg = "quota" } }, dialect = "kimi" }
  local r = t:call { model = "m" }
  t:eq(r.status, 402)
  t:eq(r.json.statusCode, 402)
  t:eq(r.json.code, "billing")
end)

test("no answer at all: a status by category, and nothing of the inside", function(t)
  standard(t)
  t:provider { { curl = "connect" }, { curl = "timeout" } }
  local r = t:call { model = "m" }
  t:eq(r.status, 502)
  t:eq(r.json.code, "network")
  t:ok(not r.body:find("p.test"))
  r = t:call { model = "m" }
  t:eq(r.status, 504)
  t:eq(r.json.statusCode, 504)
end)

test("an HTML page of a proxy becomes a plain error", function(t)
  standard(t, { pass_messages = true })
  t:provider { { status = 502, body = "<html><h1>502 Bad Gateway</h1><hr>nginx/1.25 upstream 10.1.2.3</html>",
                 headers = { ["content-type"] = "text/html" } } }
  local r = t:call { model = "m" }
  t:eq(r.status, 502)
  t:eq(r.headers["content-type"], "application/json")
  t:ok(not r.body:find("<h1>"))
end)

test("Retry-After is passed on", function(t)
  standard(t)
  t:provider { { status = 503, headers = { ["retry-after"] = "7" } } }
  local r = t:call { model = "m" }
  t:eq(r.headers["retry-after"], "7")
end)

test("other statuses, by category and by status", function(t)
  standard(t, { status = { billing = 503, ["529"] = 503 } })
  t:provider { { status = 402 }, { status = 529 }, { status = 404 } }
  t:eq(t:call({ model = "m" }).status, 503)
  t:eq(t:call({ model = "m" }).status, 503)
  t:eq(t:call({ model = "m" }).status, 404)
end)

test("what parry refuses itself has the same shape, and keeps its words", function(t)
  standard(t)
  t:use("circuit_breaker", { failures = 1, cooldown = 10, successes = 1, permits = 1, by = "target",
      count = { "server" } })
  t:provider { { status = 500 } }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.upstream_calls, 0)
  t:eq(r.json.code, "circuit_open")
  t:match(r.json.message, "p/m is not asked")
  t:eq(r.headers["retry-after"], "10")
end)

test("the deadline has the same shape", function(t)
  standard(t)
  t:route { deadline = 3 }
  t:provider { { hang = true } }
  local r = t:call { model = "m" }
  t:eq(r.status, 504)
  t:eq(r.json.code, "deadline")
  t:eq(r.json.statusCode, 504)
end)

test("a fail{} that another policy gives has the same shape", function(t)
  standard(t)
  t:use("fallback_model", { models = {}, never = {} })
  t:provider { { status = 403 } }
  t:eq(t:call({ model = "m" }).json.code, "permission")
end)

test("only final failures are rendered: what a retry makes good is not", function(t)
  standard(t)
  t:use("retry", { max_attempts = 2, base = 1, cap = 1, jitter = "none" })
  t:provider { { status = 500 }, { status = 200 } }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.json.code, nil)
end)

test("a provider's words, when they may pass, without the inside", function(t)
  standard(t, { pass_messages = true, longest = 120 })
  local function told(message)
    t:provider(failing(500, { message = message }))
    return t:call({ model = "m" }).json.message
  end
  t:eq(told("the model is gone"), "the model is gone")
  t:eq(told("see http://10.0.0.1:8080/x?key=1 now"), "see [url] now")
  t:eq(told("failed in /usr/lib/app/main.py"), "failed in [path]")
  t:eq(told("bad\r\nX: y"), "bad X: y")
  local trace = told("Oops Traceback (most recent call last): File \"/app/x.py\", line 3")
  t:ok(not trace:find("app/x"))
  t:eq(#told(("x"):rep(500)), 123)
  t:match(told(""), "failed")
end)

test("codes of the provider, when told so", function(t)
  standard(t, { pass_codes = true })
  t:provider(failing(400, { message = "x", code = "unsupported_value" }))
  t:eq(t:call({ model = "m" }).json.code, "unsupported_value")
end)

test("texts of our own", function(t)
  standard(t, { messages = { server = "call the desk" } })
  t:provider { { status = 500 } }
  t:eq(t:call({ model = "m" }).json.message, "call the desk")
end)

test("a stream that breaks ends with an event of that shape", function(t)
  standard(t)
  t:provider { { sse = { { data = { choices = { { delta = { content = "hel" } } } } } }, cut = true } }
  local r = t:call { model = "m", stream = true }
  t:eq(r.status, 200)
  t:match(r.body, "hel")
  t:match(r.body, '\ndata: {"code":"network"[^\n]*"statusCode":502[^\n]*}\n\n$')
  t:eq(r.truncated, false)
end)

test("and for Anthropic's clients as an error event", function(t)
  standard(t)
  t:route { client_dialect = "anthropic" }
  t:provider { { sse = { { event = "content_block_delta", data = { type = "content_block_delta",
      delta = { text = "x" } } } },
                 cut = true }, dialect = "anthropic" }
  local r = t:call { model = "m", stream = true }
  t:match(r.body, '\nevent: error\ndata: {"code":"network"[^\n]*}\n\n$')
end)

test("good answers are not touched", function(t)
  standard(t)
  t:provider { { status = 200, body = '{"choices":[]}' } }
  t:eq(t:call({ model = "m" }).body, '{"choices":[]}')
end)

test("mistakes in parameters are told", function(t)
  t:match(t:refused(function() standard(t, { status = { nope = 500 } }) end), "status: nope is neither")
  t:match(t:refused(function() standard(t, { status = { billing = 200 } }) end), "must be 400..599")
  t:match(t:refused(function() standard(t, { messages = { nope = "x" } }) end), "there is no category")
  t:match(t:refused(function() standard(t, { status = 503 }) end), "status must be a table .*, got 503")
  t:match(t:refused(function() standard(t, { status = { [529] = 503 } }) end), "status: write %[\"529\"%], as a text")
  t:match(t:refused(function() standard(t, { messages = "sorry" }) end), "messages must be a table .*, got \"sorry\"")
end)

-- A provider's number that fits no integer left errcode out, and a body without one means success.
test("KIMI's shape always has an errcode", function(t)
  t:use("standard_errors", { style = "kimi", pass_codes = true })
  t:dialect("kimi")
  t:provider { { status = 400, body = { errcode = "-99999999999999999999", errmsg = "no" } } }
  local r = t:call { model = "m" }
  t:eq(r.status, 400)
  t:eq(r.json.errcode, -2000)
end)
