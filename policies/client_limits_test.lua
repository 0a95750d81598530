local OK = { status = 200 }
local SLOW = { status = 200, delay = 3 }

local function limit(t, limits, more)
  local params = { limits = limits, max_wait = 0, max_waiting = 100 }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("client_limits", params)
end

local function steps(step, n)
  local list = {}
  for i = 1, n do list[i] = step end
  return list
end

local function of(client) return { model = "m", client = client } end

test("calls a minute, each client for itself", function(t)
  limit(t, { ["*"] = { calls_per_minute = 2 } })
  t:provider(steps(OK, 4))
  t:eq(t:call(of "a").status, 200)
  t:advance(20)
  t:eq(t:call(of "a").status, 200)
  local r = t:call(of "a")
  t:eq(r.status, 429)
  t:eq(r.json.error.code, "client_limit")
  t:eq(r.headers["retry-after"], "40")
  t:eq(t:call(of "b").status, 200)
  t:advance(40)
  t:eq(t:call(of "a").status, 200)
end)

test("calls at a time", function(t)
  limit(t, { a = { concurrent = 1 } })
  t:provider(steps(SLOW, 3))
  local calls = t:calls { of "a", of "a", of "b", of "b" }
  t:eq(calls[1].status, 200)
  t:eq(calls[2].status, 429)
  t:eq(calls[2].headers["retry-after"], "1")
  t:eq(calls[3].status, 200) -- no entry: no limit
end)

test("both, and in line", function(t)
  limit(t, { a = { concurrent = 1, calls_per_minute = 2 } }, { max_wait = 100 })
  t:route { deadline = 200 }
  t:provider(steps(SLOW, 3))
  local calls = t:calls(3, of "a")
  t:near(calls[2].waited, 3, 0.001)
  t:near(calls[3].waited, 63, 0.001) -- the first was sent, after its delay, at 3
end)

test("the most specific entry counts, and no other", function(t)
  limit(t, { ["*"] = { calls_per_minute = 1 }, ["ci-*"] = { concurrent = 5 } })
  t:provider(steps(OK, 3))
  t:eq(t:call(of "ci-1").status, 200)
  t:eq(t:call(of "ci-1").status, 200)
  t:eq(t:call(of "x").status, 200)
  t:eq(t:call(of "x").status, 429)
end)

test("where nobody has a key all calls are one client's", function(t)
  limit(t, { ["*"] = { calls_per_minute = 1 } })
  t:provider { OK }
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ model = "m" }).status, 429)
end)

test("a call that no provider got does not count", function(t)
  limit(t, { ["*"] = { calls_per_minute = 1 } })
  t:use("concurrency", { slots = 1, by = "target", max_wait = 0, max_waiting = 0, retry_after = 1 })
  t:provider(steps(SLOW, 2))
  t:start(of "a")
  t:advance(1)
  t:eq(t:call(of "b").status, 503)
  t:run()
  t:eq(t:call(of "b").status, 200)
end)

local function used(prompt, answer)
  return { status = 200, body = ('{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":%d,'
    .. '"completion_tokens":%d,"total_tokens":%d}}'):format(prompt, answer, prompt + answer) }
end

test("tokens a day, until midnight UTC", function(t)
  limit(t, { ["*"] = { tokens_per_day = 1000 } })
  t:provider { used(500, 400), used(90, 20), OK, OK }
  t:eq(t:call(of "a").status, 200)
  t:eq(t:call(of "a").status, 200) -- 900 of 1000
  local r = t:call(of "a")
  t:eq(r.status, 429)
  t:eq(r.category, "rate_limit")
  t:eq(r.json.error.code, "daily_token_limit")
  local left = tonumber(r.headers["retry-after"])
  t:near(left, 86400 - t:now() % 86400, 1)
  t:eq(t:call(of "b").status, 200)
  t:advance(left - 2)
  t:eq(t:call(of "a").status, 429)
  t:advance(2)
  t:eq(t:call(of "a").status, 200)
end)

test("money a day", function(t)
  limit(t, { ["*"] = { cost_per_day = 1 } })
  t:provider { used(500000, 0), used(600000, 0), OK, models = { ["*"] = { input = 1, output = 2 } } }
  t:eq(t:call(of "a").status, 200)
  t:eq(t:call(of "a").status, 200) -- half of it was left
  local r = t:call(of "a")
  t:eq(r.status, 429)
  t:eq(r.json.error.code, "daily_cost_limit")
  t:near(tonumber(r.headers["retry-after"]), 86400 - t:now() % 86400, 1)
  t:advance(86400)
  t:eq(t:call(of "a").status, 200)
end)

test("an answer that tells no tokens counts for none", function(t)
  limit(t, { ["*"] = { tokens_per_day = 1, cost_per_day = 0.001 } })
  t:provider { { status = 200, body = '{"choices":[]}' }, OK }
  t:eq(t:call(of "a").status, 200)
  t:eq(t:call(of "a").status, 200)
end)

test("texts name the client, and say limits as people write them", function(t)
  limit(t, { ["*"] = { calls_per_minute = 1 }, big = { tokens_per_day = 2000000 } })
  t:provider { OK, { status = 200, body = { usage = { prompt_tokens = 2000000, completion_tokens = 1 } } } }
  t:eq(t:call({ model = "m" }).status, 200)
  t:match(t:call({ model = "m" }).json.error.message, "^everybody together has reached its limit of calls")
  t:eq(t:call(of "big").status, 200)
  t:match(t:call(of "big").json.error.message, "^big has used its 2000000 tokens of today")
end)
