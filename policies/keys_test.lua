local OK = { status = 200 }
local REFUSED = { status = 401, body = { error = { message = "no", code = "invalid_api_key" } } }
local BROKE = { status = 402, body = { error = { message = "no money", type = "insufficient_balance" } } }
local FROZEN = { status = 403, body = { error = { message = "frozen", type = "api_key_frozen" } } }

local function limited(seconds)
  return { status = 429, headers = seconds and { ["retry-after"] = tostring(seconds) },
           body = { error = { message = "slow down", type = "rate_limit_error" } } }
end

local function rotating(t, steps, more)
  local params = { retire = 600, pause = 5, count = { "auth", "billing", "api_key_frozen" }, shared_account = false }
  for name, value in pairs(more or {}) do params[name] = value end
  steps.keys = steps.keys or { "K1", "K2", "K3" }
  t:use("keys", params)
  t:provider("p", steps)
end

local function keys_of(r)
  local names = {}
  for i, attempt in ipairs(r.ledger) do names[i] = attempt.key or "none" end
  return table.concat(names, " ")
end

local function bearer_of(t, i) return t:sent(i).headers.authorization end

-- APISIX pull request 13852: 401 and 402 went straight to the client while good keys were idle.
test("a refused key is retired, and the call goes on with the next", function(t)
  rotating(t, { REFUSED, OK, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(keys_of(r), "K1 K2")
  t:eq(r.waited, 0)
  t:eq(keys_of(t:call { model = "m" }), "K2", "nobody asks with it again")
end)

test("a key without money is retired", function(t)
  rotating(t, { BROKE, OK, OK })
  t:eq(keys_of(t:call { model = "m" }), "K1 K2")
  t:eq(keys_of(t:call { model = "m" }), "K2")
end)

test("a frozen key is retired by its code", function(t)
  rotating(t, { FROZEN, OK, OK })
  t:eq(keys_of(t:call { model = "m" }), "K1 K2")
  t:eq(keys_of(t:call { model = "m" }), "K2")
end)

test("the value goes out, the name is shown", function(t)
  rotating(t, { REFUSED, OK })
  local r = t:call { model = "m" }
  t:eq(bearer_of(t, 1), "Bearer test-K1")
  t:eq(bearer_of(t, 2), "Bearer test-K2")
  t:eq(r.ledger[2].key, "K2")
end)

test("a retired key comes back after its time", function(t)
  rotating(t, { REFUSED, OK, OK, OK }, { retire = 60 })
  t:call { model = "m" }
  t:advance(59.9)
  t:eq(keys_of(t:call { model = "m" }), "K2")
  t:advance(0.2)
  t:eq(keys_of(t:call { model = "m" }), "K1")
end)

test("a 429 pauses the key for its Retry-After and rotates at once", function(t)
  rotating(t, { limited(20), OK, OK, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(keys_of(r), "K1 K2")
  t:eq(r.waited, 0)
  t:advance(19)
  t:eq(keys_of(t:call { model = "m" }), "K2")
  t:advance(1.5)
  t:eq(keys_of(t:call { model = "m" }), "K1")
end)

test("a 429 without Retry-After pauses it for `pause`", function(t)
  rotating(t, { limited(), OK, OK, OK }, { pause = 3 })
  t:call { model = "m" }
  t:advance(2.9)
  t:eq(keys_of(t:call { model = "m" }), "K2")
  t:advance(0.2)
  t:eq(keys_of(t:call { model = "m" }), "K1")
end)

test("all paused: the retry waits for the first that is back, not for the last", function(t)
  rotating(t, { limited(4), limited(30), OK, keys = { "K1", "K2" } })
  t:use("retry", { max_attempts = 4, base = 0, cap = 1, jitter = "none" })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(keys_of(r), "K1 K2 K1")
end)

test("all paused: a new call is told when to come back, and nothing is sent", function(t)
  rotating(t, { limited(10), limited(30), keys = { "K1", "K2" } })
  t:call { model = "m" }
  t:advance(2)
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 0)
  t:eq(r.status, 429)
  t:eq(r.headers["retry-after"], "8")
  t:eq(r.ledger[1].code, "no_usable_key")
end)

test("all paused: a new call waits for the first that is back, if that is soon enough", function(t)
  rotating(t, { limited(10), limited(30), OK, keys = { "K1", "K2" } }, { patience = 9 })
  t:call { model = "m" }
  t:advance(0.5)
  t:eq(t:call({ model = "m" }).status, 429)
  t:advance(1.5)
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(keys_of(r), "none K1")
  t:ok(r.waited >= 8 and r.waited < 9)
end)

test("all retired: an auth failure of parry's own, and nothing is sent", function(t)
  rotating(t, { REFUSED, BROKE, REFUSED })
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 3)
  t:eq(keys_of(r), "K1 K2 K3")
  r = t:call { model = "m" }
  t:eq(r.upstream_calls, 0)
  t:eq(r.status, 401)
  t:eq(r.category, "auth")
  t:eq(r.json.error.code, "no_usable_key")
  t:eq(r.headers["retry-after"], nil)
end)

test("each key is tried once by a call", function(t)
  rotating(t, { REFUSED, REFUSED, REFUSED, OK }, { count = { "auth" } })
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 3)
  t:eq(r.status, 401)
end)

test("rotations count against max_attempts_per_call", function(t)
  rotating(t, { REFUSED, REFUSED, OK })
  t:route { max_attempts_per_call = 2 }
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 2)
  t:eq(r.status, 401)
end)

test("rotations are free of the retry budget", function(t)
  local steps = { keys = { "K1", "K2" } }
  for i = 1, 20 do steps[i] = { status = 401, body = REFUSED.body, delay = 1 } end
  for i = 21, 40 do steps[i] = OK end
  rotating(t, steps)
  for _, r in ipairs(t:calls(20, { model = "m" })) do t:eq(r.status, 200) end
  t:eq(#t:requests("provider"), 40)
end)

test("one account: its limit is everybody's, and another key does not help", function(t)
  rotating(t, { limited(2), OK, OK }, { shared_account = true })
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  local r = t:call { model = "m" }
  t:eq(keys_of(r), "K1 K1")
  t:eq(r.waited, 2)
end)

test("one account: so is its balance, but not a wrong key", function(t)
  rotating(t, { BROKE, REFUSED, OK }, { shared_account = true })
  local r = t:call { model = "m" }
  t:eq(r.status, 402)
  t:eq(keys_of(r), "K1")
  t:eq(keys_of(t:call { model = "m" }), "K1 K2")
end)

test("one key: it stays in use, and people are told once", function(t)
  t:sink("ops")
  rotating(t, { REFUSED, REFUSED, OK, keys = { "K1" } }, { to = "ops" })
  t:eq(t:call({ model = "m" }).status, 401)
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
  local alerts = t:alerts()
  t:eq(#alerts, 1)
  t:match(alerts[1].text, "^key K1 of p: auth, code invalid_api_key, HTTP 401; it is the only key")
  t:eq(t:call({ model = "m" }).status, 200)
  alerts = t:alerts()
  t:eq(alerts[#alerts].state, "resolved")
end)

test("one key: a 429 waits as without this policy", function(t)
  rotating(t, { limited(2), OK, keys = { "K1" } })
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.waited, 2)
end)

test("an alert names provider and key, never its value, and is resolved by the key's next success", function(t)
  t:sink("ops")
  rotating(t, { REFUSED, OK, OK }, { to = "ops", retire = 60 })
  t:call { model = "m" }
  local alerts = t:alerts()
  t:eq(#alerts, 1)
  t:match(alerts[1].text, "key K1 of p: auth")
  t:eq(alerts[1].text:find("test-K1", 1, true), nil)
  t:advance(61)
  t:call { model = "m" }
  alerts = t:alerts()
  t:eq(alerts[#alerts].state, "resolved")
end)

test("the same key for many callers is retired once", function(t)
  t:sink("ops")
  local steps = { keys = { "K1", "K2" } }
  for i = 1, 50 do steps[i] = { status = 401, body = REFUSED.body, delay = 1 } end
  rotating(t, steps, { to = "ops" })
  t:otherwise(OK)
  for _, r in ipairs(t:calls(50, { model = "m" })) do t:eq(r.status, 200) end
  t:eq(#t:alerts(), 1)
end)

test("other failures say nothing about a key", function(t)
  for _, status in ipairs { 400, 403, 404, 500, 503 } do
    t:provider("q" .. status, { { status = status }, keys = { "K1", "K2" } })
  end
  t:use("keys", { retire = 600, pause = 5, count = { "auth", "billing" } })
  t:route { to = { ["q400"] = "q400", ["q403"] = "q403", ["q404"] = "q404", ["q500"] = "q500", ["q503"] = "q503" } }
  for _, status in ipairs { 400, 403, 404, 500, 503 } do
    local r = t:call { model = "q" .. status }
    t:eq(r.status, status)
    t:eq(r.upstream_calls, 1)
  end
end)

test("refusals: a client that asks for what no key may do takes no good key out of use", function(t)
  rotating(t, { OK, REFUSED, REFUSED, OK, REFUSED, REFUSED, OK, keys = { "K1", "K2" } }, { refusals = 2 })
  t:call { model = "m" }
  t:eq(keys_of(t:call { model = "forbidden" }), "K1 K2")
  t:eq(keys_of(t:call { model = "m" }), "K1")
  t:eq(keys_of(t:call { model = "forbidden" }), "K1 K2", "K2 for the second time, with no success between")
  t:eq(keys_of(t:call { model = "m" }), "K1")
end)

test("refusals: as many in a row retire it", function(t)
  rotating(t, { REFUSED, OK, REFUSED, OK, OK, keys = { "K1", "K2" } }, { refusals = 2 })
  t:eq(keys_of(t:call { model = "m" }), "K1 K2")
  t:eq(keys_of(t:call { model = "m" }), "K1 K2")
  t:eq(keys_of(t:call { model = "m" }), "K2")
end)

test("round robin takes the keys in turn and passes over a retired one", function(t)
  rotating(t, { OK, OK, OK, REFUSED, OK, OK, OK, rotate = "round_robin" })
  local order = {}
  for i = 1, 6 do order[i] = keys_of(t:call { model = "m" }) end
  t:eq(table.concat(order, ","), "K1,K2,K3,K1 K2,K3,K2")
end)

test("a fallback to another provider uses that one's keys", function(t)
  t:provider("q", { OK, keys = { "Q1", "Q2" } })
  rotating(t, { REFUSED, REFUSED, { status = 503 }, keys = { "K1", "K2", "K3" } })
  t:use("fallback_model", { models = { ["m"] = { "q/m" } }, categories = {}, never = {} })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(keys_of(r), "K1 K2 K3 Q1")
end)

test("rate_limit in count is refused", function(t)
  t:match(t:refused(function() t:use("keys", { count = { "rate_limit" } }) end), "rate_limit pauses a key")
end)

-- What the core does with several keys, without this policy ---------------------------------------------------------

test("without this policy a 429 is waited for with the same key", function(t)
  t:provider("p", { limited(2), OK, keys = { "K1", "K2" } })
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  local r = t:call { model = "m" }
  t:eq(keys_of(r), "K1 K1")
  t:eq(r.waited, 2)
end)

test("in turn: the retry is another key's", function(t)
  t:provider("p", { limited(2), OK, keys = { "K1", "K2" }, rotate = "round_robin" })
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  local r = t:call { model = "m" }
  t:eq(keys_of(r), "K1 K2")
end)

test("declarations that cannot be are refused in clear words", function(t)
  local function complaint(text)
    return t:refused(function()
      t:declare(('provider "z" { base_url = "http://z.test", dialect = "openai", %s }'):format(text))
    end)
  end
  t:match(complaint 'keys = { secret "A" }', 'keys needs auth = bearer%(secret "NAME"%)')
  t:match(complaint 'auth = bearer(secret "A"), keys = { "sk-something" }', "element 1 is a text")
  t:eq(complaint('auth = bearer(secret "A"), keys = { "sk-something" }'):find("sk-something", 1, true), nil)
  t:match(complaint 'auth = bearer(secret "A"), keys = { a = secret "B" }', "must be a list")
  t:match(complaint 'auth = bearer(secret "A"), rotate = "sometimes"', 'must be "first" .* got "sometimes"')
  t:match(complaint 'auth = passthrough(), keys = { secret "A" }', "keys needs auth")
  t:eq(complaint 'auth = header("x-api-key", secret "A"), keys = { secret "A", secret "B" }, rotate = "first"', nil)
end)
