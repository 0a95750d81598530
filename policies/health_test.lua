local OK = { status = 200 }
local GOOD = { status = 200, body = '{"data":[{"id":"m"},{"id":"n"}]}' }
local BROKEN = { status = 503 }

-- Checks p/m every 10 s, without jitter.
local function checks(t, more)
  local params = { targets = { "p/m" }, interval = 10, jitter = 0, probe = "models", timeout = 5, failures = 2,
                   successes = 2 }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("health", params)
  t:use("fallback_model", { models = { ["m"] = { "q/n" } } })
  t:provider("q", {})
end

-- The configuration of a test is loaded by its first call, or by looking at the clock.
local function rounds(t, n)
  t:advance(10 * n)
end

test("after bad checks in a row calls go to the fallback, and nothing is sent to the target", function(t)
  checks(t)
  t:provider { BROKEN, BROKEN, GOOD, GOOD, OK }
  t:provider("q", { OK, OK })
  rounds(t, 2) -- at 1 s and 11 s
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "q/n")
  t:eq(r.upstream_calls, 1)
  t:eq(r.ledger[1].code, "unhealthy")
  rounds(t, 1) -- the first good one
  t:eq(t:call({ model = "m" }).target, "q/n")
  rounds(t, 1)
  t:eq(t:call({ model = "m" }).target, "p/m")
end)

test("one bad check among good ones changes nothing", function(t)
  checks(t)
  t:provider { BROKEN, GOOD, BROKEN, GOOD, OK }
  rounds(t, 4)
  t:eq(t:call({ model = "m" }).target, "p/m")
end)

test("when nobody else takes the call, the unhealthy target is tried anyway", function(t)
  checks(t, { failures = 1 })
  t:provider { BROKEN, OK, OK }
  t:provider("q", { BROKEN })
  rounds(t, 1)
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "p/m")
  t:eq(r.waited, 0)
end)

test("a single target is never shut by checks", function(t)
  t:use("health", { targets = { "p/m" }, interval = 10, jitter = 0, probe = "models", timeout = 5, failures = 1,
                    successes = 1 })
  t:provider { BROKEN, { status = 500 }, OK }
  rounds(t, 1)
  t:eq(t:call({ model = "m" }).status, 500)
  t:eq(t:call({ model = "m" }).status, 200)
end)

test("a check of the provider alone shuts all of its models", function(t)
  checks(t, { targets = { "p" }, failures = 1 })
  t:provider { { status = 401 } }
  t:provider("q", { OK })
  rounds(t, 1)
  t:eq(t:call({ model = "m" }).target, "q/n")
end)

for name, step in pairs {
  ["a wrong key"] = { status = 401 }, ["a key without permission"] = { status = 403 },
  ["an unpaid bill"] = { status = 402 }, ["a refused connection"] = { curl = "connect" },
  ["an unknown name"] = { curl = "dns" }, ["silence"] = { hang = true },
  ["an error of the provider"] = { status = 500 },
  ["an overloaded provider"] = { status = 529 },
} do
  test("a bad check: " .. name, function(t)
    checks(t, { failures = 1, timeout = 2 })
    t:provider { step }
    t:provider("q", { OK })
    t:advance(4)
    t:eq(t:call({ model = "m" }).target, "q/n")
  end)
end

test("a rate limit, a missing list of models and odd answers are no illness", function(t)
  checks(t, { failures = 1 })
  t:provider { { status = 429 }, { status = 404 }, { status = 400 }, { status = 405 }, OK }
  rounds(t, 4)
  t:eq(t:call({ model = "m" }).target, "p/m")
end)

test("a model that is not in the list is asked for by name", function(t)
  checks(t, { failures = 1, targets = { "p/other" } })
  t:provider { GOOD, { status = 404 } }
  t:provider("q", { OK })
  rounds(t, 1)
  t:match(t:sent(2).url, "/models/other$")
end)

test("Azure's deployments are in no list: whether somebody is there is all that is asked", function(t)
  t:use("health", { targets = { "z/our-deployment" }, interval = 10, jitter = 0, failures = 1 })
  t:provider("z", { { status = 404 }, dialect = "azure" })
  t:provider { OK }
  t:advance(3)
  t:eq(t:sent(1).method, "GET")
  t:ne(t:sent(1).url:match("/models"), "/models")
  t:eq(#t:call({ model = "m" }).faults, 0)
end)

test("Gemini has no list as OpenAI's, and is asked for the model", function(t)
  t:use("health", { targets = { "g/gemini-pro" }, interval = 10, jitter = 0, failures = 1, successes = 1 })
  t:provider("g", { { status = 200, body = '{"models":[{"name":"models/gemini-pro"}]}' },
                    { status = 200, body = '{"name":"models/gemini-pro"}' }, dialect = "gemini" })
  t:advance(3)
  t:match(t:sent(1).url, "/models$")
  t:match(t:sent(2).url, "/models/gemini%-pro$")
end)

test("a completion asks for one token", function(t)
  checks(t, { probe = "completion" })
  t:provider { OK }
  rounds(t, 1)
  local sent = t:sent(1)
  t:match(sent.url, "/chat/completions$")
  t:eq(sent.json.max_tokens, 1)
  t:eq(sent.json.model, "m")
end)

test("tells once that a target is unhealthy, and once that it is healthy again", function(t)
  t:sink("ops")
  checks(t, { failures = 1, successes = 1, to = "ops" })
  t:provider { { status = 401 }, { status = 401 }, GOOD, GOOD }
  rounds(t, 4)
  t:eq(#t:alerts(), 2)
  t:match(t:alerts()[1].text, "p/m is unhealthy: auth, HTTP 401.*the key is missing, wrong or expired")
  t:match(t:alerts()[2].text, "p/m is healthy again")
  t:eq(t:alerts()[1].key, t:alerts()[2].key)
end)

test("two chains with the same list check it once, and both know", function(t)
  checks(t, { failures = 1 })
  t:declare [[
    route "/other" { to = "p/m", chain = {
      use "health" { targets = { "p/m" }, interval = 10, jitter = 0, failures = 1, successes = 2 },
      use "fallback_model" { models = { ["m"] = { "q/n" } } },
    } }
  ]]
  t:provider { BROKEN }
  t:provider("q", { OK, OK })
  t:advance(9)
  t:eq(#t:requests("provider"), 1)
  t:eq(t:call({ model = "m" }).target, "q/n")
  t:eq(t:call({ model = "m", path = "/other" }).target, "q/n")
end)

test("other lists of other chains are checked by themselves", function(t)
  checks(t, { failures = 1 })
  t:declare [[
    route "/other" { to = "p/n", chain = {
      use "health" { targets = { "p/n" }, interval = 10, jitter = 0, failures = 1, successes = 2 },
    } }
  ]]
  t:provider { GOOD, GOOD, GOOD, GOOD }
  t:advance(19)
  t:eq(#t:requests("provider"), 4)
end)

test("targets are written out", function(t)
  checks(t, { targets = { "p/*" } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "targets%[1%] must be \"provider/model\" or \"provider\", written out")
end)
