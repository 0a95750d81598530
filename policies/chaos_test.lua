local OK = { status = 200 }

local function chaos(t, experiments, more)
  local params = { experiments = experiments, armed = {}, until_time = "", longest = 3600, allow_requests = false }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("chaos", params)
end

local function arm(t, experiment, seconds, rate)
  t:emit("chaos", { action = "arm", experiment = experiment, seconds = seconds, rate = rate, request = 1 })
end

test("declared is not armed", function(t)
  chaos(t, { down = { category = "server" } })
  t:provider { OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 1)
end)

test("an armed experiment fails attempts, sends nothing, and ends by itself", function(t)
  chaos(t, { down = { category = "overloaded", retry_after = 3 } })
  t:provider { OK }
  arm(t, "down", 60)
  local r = t:call { model = "m" }
  t:eq(r.status, 529)
  t:eq(r.category, "overloaded")
  t:eq(r.headers["retry-after"], "3")
  t:eq(r.upstream_calls, 0)
  t:eq(r.ledger[1].injected, true)
  t:advance(60)
  r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.ledger[1].injected, false)
end)

test("off ends it at once", function(t)
  chaos(t, { down = { category = "server" }, slow = { delay = 1 } })
  t:provider { OK, OK }
  arm(t, "down", 600)
  arm(t, "slow", 600)
  t:emit("chaos", { action = "off", experiment = "down", request = 2 })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.elapsed, 1)
  t:emit("chaos", { action = "off", request = 3 })
  t:eq(t:call({ model = "m" }).elapsed, 0)
end)

test("each category is classified as what it is injected as", function(t)
  local experiments = {}
  local names = { "auth", "permission", "billing", "rate_limit", "overloaded", "server", "timeout", "network",
                  "invalid_request", "not_found", "context_length", "content_policy", "conflict", "payload_too_large" }
  for _, name in ipairs(names) do experiments[name] = { category = name } end
  chaos(t, experiments)
  t:provider {}
  for _, name in ipairs(names) do
    t:emit("chaos", { action = "off", request = 1 })
    arm(t, name, 60)
    local r = t:call { model = "m" }
    t:eq(r.category, name, name)
    t:eq(r.upstream_calls, 0, name)
  end
end)

test("Anthropic's clients and KIMI's codes get their own shapes", function(t)
  chaos(t, { busy = { category = "overloaded" }, lost = { code = "-2001" } })
  t:provider { dialect = "anthropic" }
  t:route { client_dialect = "anthropic" }
  arm(t, "busy", 60)
  local r = t:call { model = "m" }
  t:eq(r.json.type, "error")
  t:eq(r.json.error.type, "overloaded_error")
  t:eq(r.category, "overloaded")
end)

test("a KIMI code is an error inside a 200", function(t)
  chaos(t, { lost = { code = "-2001" } })
  t:provider { dialect = "kimi" }
  arm(t, "lost", 60)
  local r = t:call { model = "m" }
  t:eq(r.category, "server")
  t:eq(r.ledger[1].code, "-2001")
  t:eq(r.upstream_calls, 0)
end)

test("a status with a code, and a connection that breaks", function(t)
  chaos(t, { quota = { status = 429, code = "insufficient_quota" }, cut = { curl = "reset" } })
  t:provider {}
  arm(t, "quota", 60)
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.category, "billing")
  t:emit("chaos", { action = "off", request = 1 })
  arm(t, "cut", 60)
  t:eq(t:call({ model = "m" }).category, "network")
end)

test("a delay alone goes on to the provider", function(t)
  chaos(t, { slow = { delay = 2 } })
  t:provider { OK }
  arm(t, "slow", 60)
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.elapsed, 2)
  t:eq(r.upstream_calls, 1)
  t:eq(r.ledger[1].injected, false)
end)

test("the rate is a share of the attempts", function(t)
  chaos(t, { some = { category = "server", rate = 0.2 } })
  t:otherwise(OK)
  arm(t, "some", 600)
  local failed = 0
  for _, r in ipairs(t:calls(400, { model = "m" })) do
    if r.status ~= 200 then failed = failed + 1 end
  end
  t:ok(failed > 40 and failed < 130, failed)
end)

test("a rate given when arming counts instead", function(t)
  chaos(t, { some = { category = "server", rate = 1 } })
  t:otherwise(OK)
  arm(t, "some", 600, 0)
  for _, r in ipairs(t:calls(20, { model = "m" })) do t:eq(r.status, 200) end
end)

test("filters: model, target, client, session, header", function(t)
  chaos(t, {
    model = { category = "server", models = { "a-*" } },
    target = { category = "timeout", targets = { "q/*" } },
    session = { category = "billing", sessions = { "s1" } },
    header = { category = "conflict", headers = { ["x-team"] = "red*" } },
  })
  t:route { to = { ["q-*"] = "q", ["*"] = "p" } }
  t:otherwise(OK)
  t:provider("q", {})
  for _, name in ipairs { "model", "target", "session", "header" } do arm(t, name, 600) end
  t:eq(t:call({ model = "a-1" }).category, "server")
  t:eq(t:call({ model = "b-1" }).status, 200)
  t:eq(t:call({ model = "q-1" }).category, "timeout")
  t:eq(t:call({ model = "b", headers = { ["x-session-id"] = "s1" } }).category, "billing")
  t:eq(t:call({ model = "b", headers = { ["x-session-id"] = "s2" } }).status, 200)
  t:eq(t:call({ model = "b", headers = { ["x-team"] = "red-1" } }).category, "conflict")
end)

test("breakers, retries and fallbacks take it for real", function(t)
  chaos(t, { down = { category = "server", targets = { "p/*" } } })
  t:use("circuit_breaker", { failures = 2, cooldown = 10, successes = 1, permits = 1, by = "target",
      count = { "server" } })
  t:use("retry", { max_attempts = 2, base = 1, cap = 1, jitter = "none" })
  t:use("fallback_model", { models = { m = { "q/n" } } })
  t:provider {}
  t:provider("q", { OK, OK })
  arm(t, "down", 600)
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "q/n")
  t:eq(r.attempts, 3)
  t:eq(r.upstream_calls, 1)
  r = t:call { model = "m" } -- the breaker of p/m is open now
  t:eq(r.target, "q/n")
  t:eq(r.ledger[1].refused, true)
end)

test("the file may arm for a time, which a check warns of; off wins over it", function(t)
  chaos(t, { down = { category = "server" } }, { armed = { "down" }, until_time = "2026-01-01T00:10Z" })
  t:otherwise(OK)
  t:eq(t:call({ model = "m" }).status, 500)
  t:emit("chaos", { action = "off", request = 1 })
  t:eq(t:call({ model = "m" }).status, 200)
  t:emit("chaos", { action = "arm", experiment = "down", seconds = 60, request = 2 })
  t:eq(t:call({ model = "m" }).status, 500)
  t:advance(600)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("an unknown experiment or too long a time changes nothing", function(t)
  chaos(t, { down = { category = "server" } }, { longest = 60 })
  t:otherwise(OK)
  arm(t, "other", 10)
  arm(t, "down", 61)
  arm(t, "down", 0)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("requests may ask for faults only where they are let", function(t)
  chaos(t, {}, { allow_requests = false })
  t:otherwise(OK)
  t:eq(t:call({ model = "m", headers = { ["x-parry-fault"] = "429" } }).status, 200)
  t:eq(t:call({ body = { model = "m", simulateError = true, errorCode = "500" } }).status, 200)
end)

test("requests ask by header", function(t)
  chaos(t, {}, { allow_requests = true })
  t:use("retry", { max_attempts = 3, base = 1, cap = 1, jitter = "none" })
  t:otherwise(OK)
  local r = t:call { model = "m", headers = { ["x-parry-fault"] = "code=429; retry-after=2; times=1" } }
  t:eq(r.status, 200)
  t:eq(r.attempts, 2)
  t:eq(r.waited, 2)
  t:eq(t:call({ model = "m", headers = { ["x-parry-fault"] = "context_length" } }).category, "context_length")
  t:eq(t:call({ model = "m", headers = { ["x-parry-fault"] = "delay=3" } }).elapsed, 3)
  t:eq(t:call({ model = "m", headers = { ["x-parry-fault"] = "delay=x;times=-1" } }).status, 200)
end)

test("requests ask by body", function(t)
  chaos(t, {}, { allow_requests = true })
  t:otherwise(OK)
  local r = t:call { body = { model = "m", simulateError = true, errorCode = "503", delay = 1500 } }
  t:eq(r.status, 503)
  t:eq(r.elapsed, 1.5)
  t:eq(r.upstream_calls, 0)
  t:eq(t:call({ body = { model = "m", simulateError = true, errorCode = 404 } }).status, 404)
  t:eq(t:call({ body = { model = "m", simulateError = "yes", errorCode = "500" } }).status, 200)
  t:eq(#r.faults, 0)
end)

test("mistakes in experiments are told", function(t)
  local cases = {
    { { bad = { category = "nope" } }, "category nope cannot be injected" },
    { { bad = { rate = 0.5 } }, "needs a category, status, code, curl or delay" },
    { { bad = { category = "server", rate = 2 } }, "rate must be 0..1" },
    { { bad = { category = "server", curl = "reset" } }, "takes one of category" },
    { { bad = { category = "server", model = "x" } }, "there is no field model" },
    { { bad = { category = "server", models = "x" } }, "models must be a list of globs" },
    { { ["a b"] = { category = "server" } }, "names are at most 40 letters" },
  }
  for _, case in ipairs(cases) do
    t:match(t:refused(function() chaos(t, case[1]) end), case[2])
  end
  t:match(t:refused(function() chaos(t, "busy") end), "experiments must be a table .*, got \"busy\"")
  local some = { down = { category = "server" } }
  t:match(t:refused(function() chaos(t, some, { armed = { "up" } }) end), "there is no experiment \"up\"")
  t:match(t:refused(function() chaos(t, some, { armed = { "down" } }) end), "needs an until_time")
  t:match(t:refused(function() chaos(t, some, { until_time = "tomorrow" }) end), "until_time must be a time in UTC")
end)

-- A run of spaces that ends in something else took a time that grew with its square: over budget, a fault.
test("a header of spaces is no fault", function(t)
  t:use("chaos", { allow_requests = true })
  t:provider { { status = 200 } }
  local r = t:call { model = "m", headers = { ["x-parry-fault"] = "delay=0" .. (" "):rep(8000) .. "x" } }
  t:eq(r.status, 200)
  t:eq(#r.faults, 0)
end)
