local OK = { status = 200 }
local SLOW = { status = 200, delay = 3 }

local function limit(t, more)
  local params = { limit = 2, per = 60, margin = 0, by = "target", max_wait = 300, max_waiting = 100, learn = true,
                   pause = 5 }
  for name, value in pairs(more or {}) do params[name] = value end
  if params.rate then params.limit, params.per = nil, nil end
  t:use("rate_limit", params)
end

local function steps(step, n)
  local list = {}
  for i = 1, n do list[i] = step end
  return list
end

test("a window: at most so many in any minute, the others wait in order", function(t)
  limit(t, { limit = 5, per = 60, max_wait = 300 })
  t:route { deadline = 600 }
  t:provider(steps(OK, 12))
  local calls = t:calls(12, { model = "m" })
  for i, call in ipairs(calls) do
    t:eq(call.status, 200)
    t:near(call.elapsed, (i - 1) // 5 * 60, 0.001)
  end
end)

test("a bucket: so many at once, then one after the other", function(t)
  limit(t, { rate = 2, burst = 3 })
  t:provider(steps(OK, 6))
  local calls = t:calls(6, { model = "m" })
  for i, call in ipairs(calls) do
    t:near(call.elapsed, math.max(0, i - 3) / 2, 0.001)
  end
end)

test("who would wait too long is told at once when to come", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 10 })
  t:provider { OK }
  t:call { model = "m" }
  t:advance(20)
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.upstream_calls, 0)
  t:eq(r.elapsed, 0)
  t:eq(r.headers["retry-after"], "40")
  t:eq(r.json.error.code, "rate_limited")
  t:match(r.json.error.message, "p/m")
end)

test("max_wait = 0 refuses, and says when", function(t)
  limit(t, { rate = 0.1, burst = 1, max_wait = 0 })
  t:provider { OK, OK }
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ model = "m" }).headers["retry-after"], "10")
  t:advance(10)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("the line is bounded", function(t)
  limit(t, { limit = 1, per = 10, max_waiting = 2, max_wait = 300 })
  t:provider(steps(OK, 3))
  local calls = t:calls(4, { model = "m" })
  t:eq(calls[3].status, 200)
  t:eq(calls[4].status, 429)
  t:eq(calls[4].headers["retry-after"], "30")
end)

test("who is refused goes elsewhere", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0 })
  t:use("fallback_model", { models = { ["p/*"] = { "q/n" } } })
  t:provider { OK }
  t:provider("q", { OK })
  t:eq(t:call({ model = "m" }).target, "p/m")
  t:eq(t:call({ model = "m" }).target, "q/n")
end)

test("a client that leaves leaves the line", function(t)
  limit(t, { limit = 1, per = 10, max_wait = 300 })
  t:provider { OK, OK }
  t:call { model = "m" }
  local first = t:start { model = "m" }
  local second = t:start { model = "m" }
  t:advance(1)
  t:cancel(first)
  t:run()
  t:eq(second.status, 200)
  t:near(second.elapsed, 10, 0.001)
end)

test("an attempt that was not sent counts for nothing", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0 })
  t:use("circuit_breaker", { failures = 1, cooldown = 100, successes = 1, permits = 1, by = "target",
                             count = { "server" } })
  t:provider { { status = 500 }, OK }
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).json.error.code, "rate_limited")
  t:advance(60)
  t:eq(t:call({ model = "m" }).json.error.code, "circuit_open")
  t:eq(t:call({ model = "m" }).json.error.code, "circuit_open") -- the window was not used
  t:advance(40)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("a refusal later in the pass gives the place back", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0 })
  t:use("concurrency", { slots = 1, by = "provider", max_wait = 0, max_waiting = 0, retry_after = 1 })
  t:provider { SLOW, OK }
  t:start { model = "a" }
  t:advance(1)
  t:eq(t:call({ model = "b" }).json.error.code, "concurrency")
  t:run()
  t:eq(t:call({ model = "b" }).status, 200) -- its window was not used
end)

-- LiteLLM 3646: wait for the first model to come back instead of failing.
test("a 429 stops everybody for its Retry-After, and drains the bucket", function(t)
  limit(t, { rate = 1, burst = 50 })
  t:route { deadline = 300 }
  t:provider { { status = 429, headers = { ["retry-after"] = "30" } }, OK, OK }
  t:eq(t:call({ model = "m" }).status, 429)
  local calls = t:calls(2, { model = "m" })
  t:near(calls[1].elapsed, 31, 0.001)
  t:near(calls[2].elapsed, 32, 0.001)
end)

-- langwatch 7027: four hours of calls into a target that said 429, although a fallback was there.
test("a 429 sends those in line away at once, when their turn would come too late", function(t)
  limit(t, { limit = 1, per = 5, max_wait = 20 })
  t:provider { { status = 429, delay = 1, headers = { ["retry-after"] = "60" } } }
  local calls = t:calls(3, { model = "m" })
  for i = 2, 3 do
    t:eq(calls[i].status, 429)
    t:eq(calls[i].json.error.code, "rate_limited")
    t:near(calls[i].elapsed, 1, 0.001)
    t:eq(calls[i].headers["retry-after"], "60")
  end
end)

test("a 429 without a Retry-After pauses for a while", function(t)
  limit(t, { limit = 100, per = 60, pause = 7 })
  t:provider { { status = 429 }, OK }
  t:call { model = "m" }
  t:near(t:call({ model = "m" }).elapsed, 7, 0.001)
end)

test("the provider's own headers are kept to", function(t)
  limit(t, { limit = 100, per = 60 })
  t:provider { { status = 200, headers = { ["x-ratelimit-remaining-requests"] = "1",
                                           ["x-ratelimit-reset-requests"] = "12s" } }, OK, OK }
  t:call { model = "m" }
  local calls = t:calls(2, { model = "m" })
  t:eq(calls[1].elapsed, 0)
  t:near(calls[2].elapsed, 12, 0.001)
end)

test("Anthropic's headers, too", function(t)
  limit(t, { limit = 100, per = 60 })
  t:provider { { status = 200, headers = { ["anthropic-ratelimit-requests-remaining"] = "0",
                                           ["anthropic-ratelimit-requests-reset"] = "2099-01-01T00:00:00Z" } }, OK }
  t:call { model = "m" } -- that far away is no answer to go by
  t:eq(t:call({ model = "m" }).elapsed, 0)
end)

test("learn = false does not listen", function(t)
  limit(t, { limit = 100, per = 60, learn = false })
  t:provider { { status = 200, headers = { ["x-ratelimit-remaining-requests"] = "0",
                                           ["x-ratelimit-reset-requests"] = "12s" } }, OK }
  t:call { model = "m" }
  t:eq(t:call({ model = "m" }).elapsed, 0)
end)

-- LiteLLM 34399: with more than one deployment the Retry-After of one was dropped, and the others, on the same quota,
-- were asked at once.
test("a 429 of one target stops the others of its account", function(t)
  limit(t, { limit = 100, per = 60, max_wait = 0, groups = { org = { "p/*", "q/*" } } })
  t:use("fallback_model", { models = { ["p/*"] = { "q/n" } } })
  t:provider { { status = 429, headers = { ["retry-after"] = "20" } } }
  t:provider("q", {})
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.upstream_calls, 1)
  t:eq(r.headers["retry-after"], "20")
end)

-- LiteLLM 27823: with all deployments cooling down the client got a 429 without a Retry-After.
test("when no target can take the call the soonest place is told", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0 })
  t:use("fallback_model", { models = { ["p/*"] = { "q/n" } } })
  t:provider { OK }
  t:provider("q", { OK })
  t:call { model = "m" }
  t:advance(25)
  t:call { model = "m" } -- q's
  t:advance(5)
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.headers["retry-after"], "30")
end)

test("targets of one account share one limit", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0, groups = { org = { "p/a*", "q/*" } } })
  t:use("fallback_model", { models = { ["p/a1"] = { "q/n" } } })
  t:provider { OK, OK }
  t:provider("q", { OK })
  t:eq(t:call({ model = "a1" }).status, 200)
  t:eq(t:call({ model = "a2" }).status, 429)
  t:eq(t:call({ model = "a1" }).status, 429) -- q has the same account
  t:eq(t:call({ model = "b" }).status, 200)
  t:match(t:call({ model = "a2" }).json.error.message, "group:org")
end)

test("keys of a provider may have a limit each", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0, by = "key" })
  t:use("keys", { retire = 600, pause = 5, count = { "auth" }, shared_account = false })
  t:provider { { status = 401, body = { error = { message = "no", code = "invalid_api_key" } } }, OK,
               keys = { "K1", "K2" } }
  t:eq(t:call({ model = "m" }).attempts, 2) -- the second with a key that was not used before
  local r = t:call { model = "m" }
  t:eq(r.json.error.code, "rate_limited")
  t:match(r.json.error.message, "p K2")
end)

test("a limit for each client", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0, by = "client" })
  t:provider { OK, OK, OK }
  t:eq(t:call({ model = "m", client = "a" }).status, 200)
  t:eq(t:call({ model = "m", client = "b" }).status, 200)
  t:eq(t:call({ model = "n", client = "a" }).status, 429)
  t:eq(t:call({ model = "n" }).status, 200)
end)

test("calls without a session have no limit of one", function(t)
  limit(t, { limit = 1, per = 60, max_wait = 0, by = "session" })
  t:provider { OK, OK, OK }
  t:eq(t:call({ model = "m", headers = { ["x-session-id"] = "s" } }).status, 200)
  t:eq(t:call({ model = "m", headers = { ["x-session-id"] = "s" } }).status, 429)
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ model = "m" }).status, 200)
end)

local function used(tokens)
  return { status = 200, body = ('{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":%d,'
    .. '"completion_tokens":0,"total_tokens":%d}}'):format(tokens, tokens) }
end

test("tokens: the estimate is paid first, and settled by what was used", function(t)
  limit(t, { rate = 10, burst = 1000, cost = "tokens", answer = 100 })
  t:provider { used(990), OK }
  t:call { model = "m", max_tokens = 400 }  -- pays some 400, has used 990: ten are left
  local second = t:call { model = "m", max_tokens = 160 }
  t:ok(second.elapsed > 14 and second.elapsed < 25, second.elapsed)
end)

test("an answer that says nothing keeps the estimate", function(t)
  limit(t, { rate = 1, burst = 100, cost = "tokens", answer = 10, max_wait = 300 })
  t:provider { { status = 200, body = '{"choices":[{"message":{"content":"x"}}]}' }, OK }
  t:call { model = "m", max_tokens = 60 }
  local second = t:call { model = "m", max_tokens = 60 }
  t:ok(second.elapsed > 50 and second.elapsed < 100, second.elapsed)
end)

-- "1s1s1s..." was added up piece by piece, each with a copy of the rest: over budget, a fault, whenever a provider
-- sends it.
test("a reset that never ends is no fault", function(t)
  t:use("rate_limit", { limit = 100, per = 60, max_wait = 0, learn = true })
  t:provider {
    { status = 200, headers = { ["x-ratelimit-remaining-requests"] = "1",
                                ["x-ratelimit-reset-requests"] = ("1s"):rep(4000) } },
  }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(#r.faults, 0)
end)
