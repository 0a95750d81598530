local OK = { status = 200 }
local BROKEN = { status = 500 }

local function breaker(t, more)
  local params = { failures = 2, cooldown = 10, successes = 2, permits = 1, by = "target",
                   count = { "server", "overloaded", "timeout", "network" } }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("circuit_breaker", params)
end

local function steps(step, n)
  local list = {}
  for i = 1, n do list[i] = step end
  return list
end

-- One call that fails, and so on: opens the breaker that breaker() made.
local function open(t)
  t:provider(steps(BROKEN, 2))
  t:call { model = "m" }
  t:call { model = "m" }
end

test("failures in a row open it, and then nothing is sent", function(t)
  breaker(t, { failures = 3 })
  t:provider(steps(BROKEN, 3))
  for _ = 1, 3 do
    t:eq(t:call({ model = "m" }).upstream_calls, 1)
  end
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 0)
  t:eq(r.status, 503)
  t:eq(r.category, "overloaded")
  t:eq(r.headers["retry-after"], "10")
  t:match(r.json.error.message, "p/m is not asked")
  t:eq(r.json.error.code, "circuit_open")
end)

test("a success in between starts the count again", function(t)
  breaker(t)
  t:provider { BROKEN, OK, BROKEN, OK }
  for _ = 1, 4 do
    t:eq(t:call({ model = "m" }).upstream_calls, 1)
  end
end)

test("retry-after is the time that is left", function(t)
  breaker(t)
  open(t)
  t:advance(4)
  t:eq(t:call({ model = "m" }).headers["retry-after"], "6")
end)

test("after the cooldown it lets attempts through, and successes close it", function(t)
  breaker(t, { failures = 2, successes = 2 })
  open(t)
  t:advance(10)
  t:provider { OK, OK, BROKEN, OK }
  t:eq(t:call({ model = "m" }).status, 200) -- half-open
  t:eq(t:call({ model = "m" }).status, 200) -- closed
  t:eq(t:call({ model = "m" }).status, 500) -- the first of two
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("one failure in half-open opens it again", function(t)
  breaker(t, { failures = 2, successes = 2 })
  open(t)
  t:advance(10)
  t:provider { OK, BROKEN }
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:advance(9)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("half-open lets through as many as there are permits", function(t)
  breaker(t, { permits = 2, successes = 2 })
  open(t)
  t:advance(10)
  t:provider(steps({ status = 200, delay = 1 }, 2))
  local first, second = t:start { model = "m" }, t:start { model = "m" }
  t:advance(0.5)
  local third = t:call { model = "m" }
  t:eq(third.upstream_calls, 0)
  t:eq(third.status, 503)
  t:eq(t:run(first).status, 200)
  t:eq(t:run(second).status, 200)
end)

test("a client that leaves gives its place back and counts for nothing", function(t)
  breaker(t, { permits = 1, successes = 1 })
  open(t)
  t:advance(10)
  t:provider { { hang = true }, OK }
  local gone = t:start { model = "m" }
  t:advance(0.5)
  t:cancel(gone)
  t:advance(0.5)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("errors of the caller and of credentials say nothing about the target", function(t)
  breaker(t, { failures = 1 })
  for _, status in ipairs { 400, 401, 402, 403, 404, 409, 413, 422, 429 } do
    t:provider { { status = status } }
    t:eq(t:call({ model = "m" }).status, status)
  end
  t:provider { OK }
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("what the target is to blame for counts", function(t)
  breaker(t, { failures = 1, cooldown = 1 })
  for _, step in ipairs { { status = 500 }, { status = 502 }, { status = 503 }, { status = 504 }, { status = 529 },
                          { curl = "connect" }, { curl = "timeout" }, { curl = "reset" } } do
    t:provider { step }
    t:eq(t:call({ model = "m" }).upstream_calls, 1)
    t:eq(t:call({ model = "m" }).upstream_calls, 0, step.curl or step.status)
    t:advance(1)
  end
end)

test("a stream that breaks off counts, although the client had content", function(t)
  breaker(t, { failures = 1 })
  t:provider { { sse = { { data = { choices = { { delta = { content = "hel" } } } } } }, cut = true } }
  t:call { model = "m", stream = true }
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("rate limits count when told so", function(t)
  breaker(t, { failures = 1, count = { "rate_limit" } })
  t:provider { { status = 500 }, { status = 429 } }
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).status, 429)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("a longer Retry-After is the cooldown", function(t)
  breaker(t, { failures = 1, cooldown = 10 })
  t:provider { { status = 503, headers = { ["retry-after"] = "40" } }, OK }
  t:call { model = "m" }
  t:advance(39)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:advance(1)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("a Retry-After beyond an hour does not keep it open for longer", function(t)
  breaker(t, { failures = 1, cooldown = 10 })
  for _, seconds in ipairs { "7200", "999999999" } do
    t:provider { { status = 503, headers = { ["retry-after"] = seconds } }, OK, OK }
    t:eq(#t:call({ model = "m" }).faults, 0)
    t:advance(3599)
    t:eq(t:call({ model = "m" }).upstream_calls, 0)
    t:advance(1)
    t:eq(t:call({ model = "m" }).status, 200)
    t:eq(t:call({ model = "m" }).status, 200) -- closed again
  end
end)

test("an error that says nothing about the target does not start the count again", function(t)
  breaker(t, { failures = 2 })
  t:provider { BROKEN, { status = 400 }, BROKEN }
  for _ = 1, 3 do t:call { model = "m" } end
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("an error that says nothing about the target does not close it", function(t)
  breaker(t, { failures = 2, successes = 1, permits = 1 })
  open(t)
  t:advance(10)
  t:provider { { status = 400 }, BROKEN }
  t:eq(t:call({ model = "m" }).status, 400)
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).upstream_calls, 0) -- one failure was enough: it was still half-open
end)

test("our own limit on a stream's length does not count", function(t)
  breaker(t, { failures = 1 })
  t:route { max_stream = 5 }
  local events = {}
  for i = 1, 10 do events[i] = { data = { choices = { { delta = { content = "x" } } } } } end
  t:provider { { sse = events, chunk_delay = 1 }, OK }
  local r = t:call { model = "m", stream = true }
  t:eq(r.category, "timeout")
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("by target: other models of the provider go on", function(t)
  breaker(t, { failures = 1, by = "target" })
  t:provider { BROKEN, OK }
  t:call { model = "a" }
  t:eq(t:call({ model = "a" }).upstream_calls, 0)
  t:eq(t:call({ model = "b" }).status, 200)
end)

test("by provider: all of its models pause, others go on", function(t)
  breaker(t, { failures = 1, by = "provider" })
  t:route { to = { ["q-*"] = "q", ["*"] = "p" } }
  t:provider { BROKEN, OK }
  t:provider("q", { OK })
  t:call { model = "a" }
  t:eq(t:call({ model = "b" }).upstream_calls, 0)
  t:eq(t:call({ model = "q-1" }).status, 200)
end)

test("a refused attempt goes on at the fallback, at once", function(t)
  breaker(t, { failures = 1, cooldown = 60 })
  t:use("retry", { max_attempts = 4, base = 1, cap = 1, jitter = "none", never = { "server" } })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider { BROKEN }
  t:provider("q", { OK, OK })
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "q/n")
  t:eq(r.upstream_calls, 1)
  t:eq(r.waited, 0)
end)

test("each instance has breakers of its own", function(t)
  breaker(t, { as = "quick", failures = 1, count = { "timeout" } })
  breaker(t, { as = "slow", failures = 2, count = { "server" } })
  t:provider { BROKEN, BROKEN, OK }
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("tells when it opens, once, and when it closes", function(t)
  t:sink("ops")
  breaker(t, { failures = 1, successes = 1, cooldown = 10, to = "ops" })
  t:provider { BROKEN, OK }
  t:call { model = "m" }
  t:call { model = "m" }
  t:advance(5)
  t:eq(#t:alerts(), 1)
  t:match(t:alerts()[1].text, "p/m is open after server, HTTP 500; no attempts for 10 s")
  t:advance(5)
  t:call { model = "m" }
  t:advance(1)
  t:eq(#t:alerts(), 2)
  t:match(t:alerts()[2].text, "closed again")
  t:eq(t:alerts()[1].key, t:alerts()[2].key)
end)

test("a very long model name is no fault", function(t)
  t:sink("ops")
  breaker(t, { failures = 1, to = "ops" })
  t:provider { BROKEN }
  local r = t:call { model = ("x"):rep(240) }
  t:eq(#r.faults, 0)
end)

-- ---- ratios ---------------------------------------------------------------------------------------------------------

local function outcomes(t, word)
  for i = 1, #word do
    local c = word:sub(i, i)
    t:provider { c == "s" and OK or c == "l" and { status = 200, delay = 3 } or BROKEN }
    t:eq(t:call({ model = "m" }).upstream_calls, 1, word .. " " .. i)
  end
end

test("a share of failures opens it, once there are enough calls to speak of a share", function(t)
  breaker(t, { failures = 1000, ratio = 0.5, window = 60, min_calls = 4 })
  outcomes(t, "ffsf") -- 3 of 4
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("fewer calls than min_calls say nothing, and old ones are forgotten", function(t)
  breaker(t, { failures = 1000, ratio = 0.5, window = 10, min_calls = 4 })
  outcomes(t, "fff")
  t:advance(10)
  outcomes(t, "fsss")
end)

test("with a ratio, failures in a row are no rule of their own unless asked for", function(t)
  t:use("circuit_breaker", { ratio = 0.9, window = 60, min_calls = 10, cooldown = 10, successes = 2, permits = 1,
                             count = { "server" } })
  outcomes(t, "ffffff")
end)

test("slow answers open it although all of them are good, and slow ones in half-open open it again", function(t)
  t:sink("ops")
  t:use("circuit_breaker", { slow = 2, slow_ratio = 0.5, window = 60, min_calls = 4, cooldown = 10, successes = 1,
                             permits = 1, count = { "server" }, to = "ops" })
  outcomes(t, "ssll")
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:match(t:alerts()[1].text, "p/m is open after slow answers; no attempts for 10 s")
  t:advance(10)
  outcomes(t, "l")
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:advance(10)
  outcomes(t, "ss")
end)

test("a long stream that begins in time is not slow", function(t)
  t:use("circuit_breaker", { slow = 2, slow_ratio = 0.1, window = 60, min_calls = 1, cooldown = 10, successes = 1,
                             permits = 1, count = { "server" } })
  local events = {}
  for i = 1, 10 do events[i] = { data = { choices = { { delta = { content = "x" } } } } } end
  events[11] = { data = "[DONE]" }
  t:provider { { sse = events, chunk_delay = 1 }, OK }
  t:eq(t:call({ model = "m", stream = true }).ok, true)
  t:eq(t:call({ model = "m" }).status, 200)
end)

-- ---- the cooldown ---------------------------------------------------------------------------------------------------

test("a cooldown may grow with each opening, up to its bound", function(t)
  breaker(t, { failures = 1, successes = 1, cooldown = 10, cooldown_max = 25 })
  for _, seconds in ipairs { 10, 20, 25, 25 } do
    t:provider { BROKEN }
    t:eq(t:call({ model = "m" }).upstream_calls, 1, seconds)
    t:advance(seconds - 1)
    t:eq(t:call({ model = "m" }).upstream_calls, 0, seconds)
    t:advance(1)
  end
end)

test("a later and longer Retry-After counts, a shorter one does not (LiteLLM #40130)", function(t)
  breaker(t, { failures = 1, cooldown = 5 })
  local function asks(seconds, delay)
    return { status = 503, delay = delay, headers = { ["retry-after"] = tostring(seconds) } }
  end
  t:provider { asks(20, 1), asks(60, 2), asks(1, 3), OK } -- all under way before the first has failed
  local calls = {}
  for i = 1, 3 do calls[i] = t:start { model = "m" } end
  for i = 1, 3 do t:run(calls[i]) end
  t:advance(58) -- 59 s after the second: 1 s to go
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:advance(1)
  t:eq(t:call({ model = "m" }).status, 200)
end)

-- ---- what counts ----------------------------------------------------------------------------------------------------

test("a provider that never answers counts, although the call's deadline is what ended it", function(t)
  breaker(t, { failures = 1 })
  t:route { deadline = 5 }
  t:provider { { hang = true } }
  t:eq(t:call({ model = "m" }).status, 504)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("a deadline that was used up before the attempt says nothing about the target", function(t)
  breaker(t, { failures = 2 })
  t:use("retry", { max_attempts = 4, base = 4, cap = 4, jitter = "none" })
  t:route { deadline = 5 }
  t:provider { BROKEN, { hang = true }, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 2)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("each of several failing targets opens by itself (LiteLLM #32574)", function(t)
  breaker(t, { failures = 2 })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider(steps(BROKEN, 2))
  t:provider("q", steps(BROKEN, 2))
  t:call { model = "m" }
  t:call { model = "m" }
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
end)

test("one primary, one fallback: an outage costs the primary five attempts, not three a call (LiteLLM #40405)",
  function(t)
    breaker(t, { failures = 5, cooldown = 60 })
    t:use("retry", { max_attempts = 3, base = 0.1, cap = 0.1, jitter = "none" })
    t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
    t:provider(steps({ status = 503, delay = 1 }, 5)) -- a sixth would find no answer here
    t:provider("q", steps(OK, 11))
    for _ = 1, 11 do t:eq(t:call({ model = "m" }).status, 200) end
  end)

test("a probe that has no outcome for long gives its place to another (resilience4j #935)", function(t)
  breaker(t, { failures = 2, probe_limit = 20 })
  open(t)
  t:advance(10)
  t:route { timeouts = { first_byte = 100 } }
  t:provider { { hang = true }, OK }
  local lost = t:start { model = "m" }
  t:advance(19)
  t:eq(t:call({ model = "m" }).upstream_calls, 0)
  t:advance(1)
  t:eq(t:call({ model = "m" }).status, 200)
  t:cancel(lost)
end)

-- ---- when nobody takes the call ------------------------------------------------------------------------------------

test("all open: Retry-After is the soonest recovery, not that of the last one asked (LiteLLM #27823)", function(t)
  breaker(t, { failures = 1, cooldown = 10 })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider { { status = 503, headers = { ["retry-after"] = "20" } } }
  t:provider("q", { { status = 503, headers = { ["retry-after"] = "300" } } })
  t:call { model = "m" }
  t:advance(5)
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 0)
  t:eq(r.status, 503)
  t:eq(r.headers["retry-after"], "15")
  t:eq(r.json.error.code, "circuit_open")
end)

test("try_anyway: a single target is asked all the same, and its own error reaches the client", function(t)
  breaker(t, { failures = 1, when_all_open = "try_anyway" })
  t:provider { BROKEN, { status = 502 }, OK }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 502)
  t:eq(r.waited, 0)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("try_anyway: not while another target takes the call", function(t)
  breaker(t, { failures = 1, cooldown = 60, when_all_open = "try_anyway" })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider { BROKEN, OK }
  t:provider("q", { OK, OK, BROKEN })
  t:eq(t:call({ model = "m" }).target, "q/n")
  t:eq(t:call({ model = "m" }).target, "q/n")
  local r = t:call { model = "m" } -- the other one fails, too: then the open one is what is left
  t:eq(r.target, "p/m")
  t:eq(r.status, 200)
end)

test("try_anyway: all open, the first one is asked, and what it says counts for nothing", function(t)
  breaker(t, { failures = 1, cooldown = 60, when_all_open = "try_anyway" })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider { BROKEN, OK, OK }
  t:provider("q", { BROKEN })
  t:eq(t:call({ model = "m" }).status, 500)
  for _ = 1, 2 do
    local r = t:call { model = "m" }
    t:eq(r.status, 200)
    t:eq(r.target, "p/m")
    t:eq(r.ledger[1].code, "circuit_open")
  end
end)

test("wait: the call waits for the recovery (LiteLLM #3646)", function(t)
  breaker(t, { failures = 1, cooldown = 10, when_all_open = "wait", max_wait = 20 })
  t:provider { BROKEN, OK }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:ok(r.waited >= 10 and r.waited <= 11.5, r.waited)
end)

test("wait: for the target that recovers first, not for the one asked last", function(t)
  breaker(t, { failures = 1, cooldown = 10, when_all_open = "wait", max_wait = 20 })
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider { BROKEN, OK }
  t:provider("q", { { status = 503, headers = { ["retry-after"] = "300" } } })
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "p/m")
end)

test("wait: not longer than max_wait, and not past the deadline", function(t)
  breaker(t, { failures = 1, cooldown = 10, when_all_open = "wait", max_wait = 5 })
  t:provider { BROKEN }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.waited, 0)
  t:eq(r.headers["retry-after"], "10")
end)

test("wait: a recovery after the deadline is not waited for", function(t)
  breaker(t, { failures = 1, cooldown = 10, when_all_open = "wait", max_wait = 60 })
  t:route { deadline = 8 }
  t:provider { BROKEN }
  t:call { model = "m" }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.waited, 0)
end)

test("wait: many wait, one at a time tries, and all are served", function(t)
  breaker(t, { failures = 1, cooldown = 10, successes = 2, permits = 1, when_all_open = "wait", max_wait = 60 })
  t:provider { BROKEN }
  t:call { model = "m" }
  t:provider(steps({ status = 200, delay = 1 }, 20))
  for _, r in ipairs(t:calls(20, { model = "m" })) do
    t:eq(r.status, 200)
  end
end)

-- ---- by hand --------------------------------------------------------------------------------------------------------

test("a target or provider can be stopped by hand, or exempted", function(t)
  breaker(t, { failures = 1, stopped = { "p/bad", "q" }, exempt = { "p/always" } })
  t:route { to = { ["q-*"] = "q", ["*"] = "p" } }
  t:provider("q", {})
  t:provider { OK, BROKEN, BROKEN }
  t:eq(t:call({ model = "bad" }).json.error.code, "stopped")
  t:eq(t:call({ model = "q-1" }).upstream_calls, 0)
  t:eq(t:call({ model = "good" }).status, 200)
  t:eq(t:call({ model = "always" }).upstream_calls, 1)
  t:eq(t:call({ model = "always" }).upstream_calls, 1)
end)

test("parameters that contradict each other are refused", function(t)
  t:use("circuit_breaker", { slow = 2 })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "slow and slow_ratio go together")
end)

test("attempts that a host makes open it, and are not made while it is open", function(t)
  breaker(t, { failures = 2, cooldown = 30 })
  t:provider("db", { { category = "server" }, { category = "network", not_sent = true }, { body = "well" },
                     host = true })
  local function query() return t:call { target = "db/users", path = "/v1/queries" } end
  query()
  query()
  local refused = query()
  t:eq(refused.upstream_calls, 0)
  t:eq(refused.ledger[1].refused, true)
  t:advance(31)
  t:eq(query().body, "well")
end)
