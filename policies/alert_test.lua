local OK = { status = 200 }

local function alerts(t, more)
  t:sink("ops")
  local params = {
    to = "ops", by = "provider", cooldown = 3600, again = 3600, fallback_share = 1,
    rules = { { category = "server", count = 3, window = 60 } },
  }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("alert", params)
end

-- n calls that end with this step; nothing is tried again.
local function fail(t, n, step, model)
  local steps = {}
  for i = 1, n do steps[i] = step or { status = 500 } end
  t:provider(steps)
  for _ = 1, n do t:call { model = model or "m" } end
end

local function succeed(t)
  t:provider { OK }
  t:call { model = "m" }
end

-- What has arrived so far.
local function told(t)
  t:advance(0)
  return t:alerts()
end

test("fires when the count is reached within the window", function(t)
  alerts(t)
  fail(t, 2)
  t:eq(#told(t), 0)
  fail(t, 1)
  t:eq(#told(t), 1)
  t:eq(told(t)[1].sink, "ops")
  t:match(told(t)[1].text, "3 x category server at p within 60 s")
  t:match(told(t)[1].text, "p/m, HTTP 500")
end)

test("does not fire when they are spread over more than the window", function(t)
  alerts(t)
  for _ = 1, 6 do
    fail(t, 1)
    t:advance(31)
  end
  t:eq(#told(t), 0)
end)

test("starts again from zero after firing", function(t)
  alerts(t, { cooldown = 1 })
  fail(t, 3)
  t:advance(2)
  fail(t, 2)
  t:advance(61)
  succeed(t) -- it is over
  t:eq(#told(t), 2)
  t:eq(told(t)[2].count, 5) -- three, and two more that were counted and not told
end)

test("is silent during the cooldown", function(t)
  alerts(t, { cooldown = 3600, rules = { { category = "server", count = 1, window = 60 } } })
  t:otherwise { status = 500 }
  t:provider {}
  for _ = 1, 50 do
    t:call { model = "m" }
    t:advance(60)
  end
  t:eq(#told(t), 1)
end)

test("fires again after the cooldown", function(t)
  alerts(t, { cooldown = 3600 })
  fail(t, 3)
  t:advance(3601)
  fail(t, 3)
  t:eq(#told(t), 2)
end)

test("a rule may have a cooldown of its own", function(t)
  alerts(t, { cooldown = 3600, rules = { { category = "server", count = 1, window = 10, cooldown = 100 } } })
  fail(t, 1)
  t:advance(50)
  succeed(t) -- over, and told
  fail(t, 1)
  t:eq(#told(t), 2)
  t:advance(51)
  fail(t, 1)
  t:eq(#told(t), 3)
end)

test("says that it is over when nothing matched for a whole window and a call succeeds", function(t)
  alerts(t)
  fail(t, 3)
  t:advance(59)
  succeed(t)
  t:eq(#told(t), 1)
  t:advance(2)
  succeed(t)
  t:eq(#told(t), 2)
  t:match(told(t)[2].text, "none for 60 s")
  t:eq(told(t)[2].key, told(t)[1].key)
  succeed(t)
  t:eq(#told(t), 2)
end)

test("alerts of rules with different windows end each at its own time", function(t)
  alerts(t, { rules = { { category = "server", count = 1, window = 300 }, { status = 429, count = 1, window = 60 } } })
  fail(t, 1)
  fail(t, 1, { status = 429 })
  t:eq(#told(t), 2)
  t:advance(59)
  succeed(t)
  t:eq(#told(t), 2)
  t:advance(1)
  succeed(t) -- the rate limit is over
  t:eq(#told(t), 3)
  t:match(told(t)[3].text, "none for 60 s")
  t:advance(239)
  succeed(t)
  t:eq(#told(t), 3)
  t:advance(1)
  succeed(t)
  t:eq(#told(t), 4)
  t:match(told(t)[4].text, "none for 300 s")
end)

test("another failure puts the end off", function(t)
  alerts(t)
  fail(t, 3)
  t:advance(50)
  fail(t, 1)
  t:advance(50)
  succeed(t)
  t:eq(#told(t), 1)
end)

test("rules by code, as numbers and as texts", function(t)
  alerts(t, { rules = { { code = -1000, count = 5, window = 60 }, { code = "-2002", count = 2, window = 300 } } })
  t:dialect("kimi")
  fail(t, 4, { status = 200, body = { errcode = -1000, errmsg = "system error" } })
  fail(t, 1, { status = 200, body = { errcode = -2001, errmsg = "backend" } })
  t:eq(#told(t), 0)
  fail(t, 1, { status = 200, body = { errcode = -1000, errmsg = "system error" } })
  t:eq(#told(t), 1)
  t:match(told(t)[1].text, "5 x code %-1000")
  fail(t, 2, { status = 200, body = { errcode = -2002, errmsg = "expired" } })
  t:eq(#told(t), 2)
end)

test("rules by status", function(t)
  alerts(t, { rules = { { status = 529, count = 2, window = 60 } } })
  fail(t, 3, { status = 503 })
  fail(t, 2, { status = 529 })
  t:eq(#told(t), 1)
end)

test("all that a rule names must match", function(t)
  alerts(t, { rules = { { category = "rate_limit", code = "slow", status = 429, count = 1, window = 60 } } })
  fail(t, 1, { status = 429, body = { error = { message = "x", code = "fast" } } })
  t:eq(#told(t), 0)
  fail(t, 1, { status = 429, body = { error = { message = "x", code = "slow" } } })
  t:eq(#told(t), 1)
end)

test("a failure counts for the first rule that matches", function(t)
  alerts(t, { rules = { { status = 500, count = 2, window = 60 }, { category = "server", count = 2, window = 60 } } })
  fail(t, 2)
  t:eq(#told(t), 1)
  fail(t, 2, { status = 502 })
  t:eq(#told(t), 2)
end)

test("by provider: counts all of its models together", function(t)
  alerts(t, { by = "provider" })
  fail(t, 1, nil, "a")
  fail(t, 1, nil, "b")
  fail(t, 1, nil, "c")
  t:eq(#told(t), 1)
end)

test("by target: counts each model for itself", function(t)
  alerts(t, { by = "target" })
  fail(t, 2, nil, "a")
  fail(t, 2, nil, "b")
  t:eq(#told(t), 0)
  fail(t, 1, nil, "a")
  t:eq(#told(t), 1)
  t:match(told(t)[1].text, "at p/a within")
end)

test("by all: counts everything together", function(t)
  t:provider("q", { { status = 500 } })
  t:route { to = { ["q-*"] = "q", ["*"] = "p" } }
  alerts(t, { by = "all", rules = { { category = "server", count = 2, window = 60 } } })
  fail(t, 1)
  t:call { model = "q-1" }
  t:eq(#told(t), 1)
end)

test("each attempt counts, also those that a retry made good", function(t)
  t:use("retry", { max_attempts = 4, base = 1, cap = 1, jitter = "none" })
  alerts(t)
  t:provider { { status = 500 }, { status = 500 }, { status = 500 }, OK }
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(#told(t), 1)
end)

test("the text holds no message of the provider", function(t)
  alerts(t, { rules = { { status = 400, count = 1, window = 60 } } })
  fail(t, 1, { status = 400, body = { error = { message = "your prompt 'secret plan' is bad", code = "bad_prompt" } } })
  t:match(told(t)[1].text, "code bad_prompt")
  t:ok(not told(t)[1].text:find("secret plan", 1, true))
end)

test("without a sink it is only logged", function(t)
  t:use("alert", { by = "provider", cooldown = 60, rules = { { category = "server", count = 1, window = 60 } } })
  t:provider { { status = 500 } }
  local r = t:call { model = "m" }
  t:eq(#r.faults, 0)
  t:eq(#told(t), 0)
end)

test("a very long model name is no fault", function(t)
  alerts(t, { by = "target", rules = { { category = "server", count = 1, window = 60 } } })
  t:provider { { status = 500 } }
  local r = t:call { model = ("x"):rep(240) }
  t:eq(#r.faults, 0)
  t:eq(#told(t), 1)
end)

test("rules that make no sense are refused, with what is wrong", function(t)
  t:use("alert", { by = "provider", cooldown = 60, rules = { { count = 1, window = 60 } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "rules%[1%] needs a category, a code or a status")
end)

test("fields of rules are checked by name", function(t)
  t:use("alert", { by = "provider", cooldown = 60, rules = { { categroy = "server", count = 1, window = 60 } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'has no field "categroy"')
end)

test("names of categories are checked", function(t)
  t:use("alert", { by = "provider", cooldown = 60, rules = { { category = "sever", count = 1, window = 60 } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'rules%[1%]: there is no category "sever"')
end)

test("counts and windows have bounds", function(t)
  t:use("alert", { by = "provider", cooldown = 60, rules = { { category = "server", count = 1001, window = 60 } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "count must be a whole number 1..1000")
end)

test("what goes on is counted, and told again after a while with how many since", function(t)
  alerts(t, { again = 600 })
  fail(t, 3)
  t:eq(told(t)[1].count, 3)
  for _ = 1, 20 do
    t:advance(50)
    fail(t, 1)
  end
  t:eq(#told(t), 2)
  t:eq(told(t)[2].count, 15) -- 3 and the 12 of 600 s
  t:match(told(t)[2].text, "3 x category server at p within 60 s")
  t:advance(61)
  succeed(t)
  t:eq(#told(t), 3)
  t:eq(told(t)[3].state, "resolved")
  t:eq(told(t)[3].count, 23)
end)

-- Complaint 23 of research/gateways.md: LiteLLM #3738, #3208, #3113 sent the same alert 100 to 200 times.
test("a storm of a thousand errors is one alert and one end", function(t)
  alerts(t)
  t:otherwise { status = 500 }
  t:provider {}
  for _ = 1, 10 do
    t:calls(100, { model = "m" })
    t:advance(1)
  end
  t:eq(#told(t), 1)
  t:advance(61)
  succeed(t)
  t:eq(#told(t), 2)
  t:eq(told(t)[2].state, "resolved")
  t:eq(told(t)[2].count, 1000)
end)

test("several sinks, by severity", function(t)
  t:sink("pager")
  t:sink("chat")
  alerts(t, {
    to = { warning = "ops", critical = { "pager", "chat" } },
    rules = { { category = "billing", count = 1, window = 60 }, { category = "server", count = 1, window = 60 },
              { status = 404, severity = "info", count = 1, window = 60 } },
  })
  fail(t, 1, { status = 404 }) -- nobody
  t:eq(#told(t), 0)
  fail(t, 1)
  t:eq(#told(t), 1)
  t:eq(told(t)[1].sink, "ops")
  fail(t, 1, { status = 402 })
  t:eq(#told(t), 3)
  local sinks = { told(t)[2].sink, told(t)[3].sink }
  table.sort(sinks)
  t:eq(sinks, { "chat", "pager" })
  t:advance(61)
  succeed(t)
  t:eq(#told(t), 6) -- each is told the end where it was told the beginning
end)

test("a list of sinks is told everything", function(t)
  t:sink("chat")
  alerts(t, { to = { "ops", "chat" } })
  fail(t, 3)
  t:eq(#told(t), 2)
end)

test("sinks and severities that do not exist are refused", function(t)
  t:sink("ops")
  t:match(t:refused(function() t:use("alert", { to = { critical = "nobody" } }) end), 'there is no sink "nobody"')
  t:match(t:refused(function() t:use("alert", { to = { "ops", "nobody" } }) end), 'there is no sink "nobody"')
  t:match(t:refused(function() t:use("alert", { to = { fatal = "ops" } }) end), "names no severity: fatal")
  t:match(t:refused(function() t:use("alert", { to = 7 }) end), "must be the name of a sink")
  local rule = { status = 500, count = 1, window = 1, severity = "bad" }
  t:match(t:refused(function() t:use("alert", { rules = { rule } }) end),
          "severity must be info, warning, error or critical")
end)

test("by client: counts what each key's calls run into", function(t)
  alerts(t, { by = "client", rules = { { category = "server", count = 2, window = 60 } } })
  t:provider { { status = 500 }, { status = 500 }, { status = 500 } }
  t:call { model = "m", client = "team-a" }
  t:call { model = "m", client = "team-b" }
  t:eq(#told(t), 0)
  t:call { model = "m", client = "team-a" }
  t:eq(#told(t), 1)
  t:match(told(t)[1].text, "at client team%-a within 60 s")
end)

-- The silent fallback: hermes-agent #33174, openclaw #39818.
local function falling_back(t, more)
  t:provider("q", {})
  t:use("fallback_model", { models = { ["*"] = { "q/other" } } })
  local params = { rules = {}, fallback_share = 0.5, fallback_calls = 4, fallback_window = 300 }
  for name, value in pairs(more or {}) do params[name] = value end
  alerts(t, params)
end

local function moved(t, n)
  for _ = 1, n do
    t:provider { { status = 500 } }
    t:provider("q", { OK })
    t:eq(t:call({ model = "m" }).status, 200)
  end
end

test("most calls answered by another target is an alert, though every client was served", function(t)
  falling_back(t)
  moved(t, 3)
  t:eq(#told(t), 0) -- too few to say
  succeed(t)
  t:eq(#told(t), 1)
  t:match(told(t)[1].text, "3 of 4 good calls within 300 s were answered by another target; the last by p/m")
  moved(t, 5)
  t:eq(#told(t), 1) -- counted
  t:advance(300)
  for _ = 1, 4 do succeed(t) end
  t:eq(#told(t), 2)
  t:eq(told(t)[2].state, "resolved")
  t:match(told(t)[2].text, "p answers its calls again: 0 of 4")
  for _ = 1, 10 do succeed(t) end
  t:eq(#told(t), 2)
end)

test("few calls answered by another target are no alert", function(t)
  falling_back(t)
  for _ = 1, 3 do
    succeed(t)
    succeed(t)
    moved(t, 1)
  end
  t:eq(#told(t), 0)
end)

test("a retry at the same target is no fallback", function(t)
  t:use("retry", { max_attempts = 4, base = 1, cap = 1, jitter = "none" })
  alerts(t, { rules = {}, fallback_share = 0, fallback_calls = 1 })
  t:provider { { status = 500 }, OK }
  t:eq(t:call({ model = "m" }).attempts, 2)
  t:eq(#told(t), 0)
end)
