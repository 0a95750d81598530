local OK = { status = 200 }
local EXPIRED = { status = 401, body = { error = { message = "expired", code = "token_expired" } } }

local function granted(token)
  return { body = { access_token = token, expires_in = 3600 } }
end

-- Provider p with credential c, whose token endpoint answers these.
local function renewing(t, steps, more)
  steps.grant = "oauth"
  steps.access_token = true
  t:credential("c", steps)
  t:use("token_refresh", more or {})
end

local function provider(t, steps)
  steps.credential = "c"
  t:provider("p", steps)
end

local function bearer_of(sent)
  return sent.headers.authorization
end

test("an expired token is renewed, and the call goes on with the new one", function(t)
  renewing(t, { granted("fresh") })
  provider(t, { EXPIRED, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 2)
  t:eq(#t:requests("token"), 1)
  t:eq(bearer_of(t:sent(2)), "Bearer fresh")
  t:ne(bearer_of(t:sent(1)), "Bearer fresh")
end)

test("KIMI's expired token, inside a 200", function(t)
  renewing(t, { granted("fresh") })
  provider(t, { { status = 200, body = { errcode = -2002, errmsg = "token expired", data = json.null } }, OK,
                dialect = "kimi" })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 2)
  t:eq(bearer_of(t:sent(2)), "Bearer fresh")
end)

test("any number of calls, one renewal", function(t)
  renewing(t, { { body = { access_token = "fresh", expires_in = 3600 }, delay = 1 } })
  provider(t, { EXPIRED, EXPIRED, EXPIRED, OK, OK, OK })
  local calls = {}
  for i = 1, 3 do calls[i] = t:start { model = "m" } end
  t:run()
  for i = 1, 3 do t:eq(calls[i].status, 200) end
  t:eq(#t:requests("token"), 1)
end)

test("one renewal a call: a token that is refused again ends it", function(t)
  renewing(t, { granted("fresh"), granted("fresher") })
  provider(t, { EXPIRED, EXPIRED, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 401)
  t:eq(r.upstream_calls, 2)
  t:eq(#t:requests("token"), 1)
end)

test("the attempt after a renewal is no attempt of retry", function(t)
  renewing(t, { granted("fresh") })
  t:use("retry", { max_attempts = 2, base = 1, cap = 1, jitter = "none" })
  provider(t, { EXPIRED, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.waited, 0)
end)

test("other failures renew nothing", function(t)
  renewing(t, {})
  for _, status in ipairs { 400, 403, 429, 500 } do
    provider(t, { { status = status } })
    t:eq(t:call({ model = "m" }).status, status)
  end
  t:eq(#t:requests("token"), 0)
end)

test("a provider without a credential gives the failure to the next policy", function(t)
  t:use("token_refresh", {})
  t:provider { EXPIRED, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 401)
  t:eq(r.upstream_calls, 1)
  t:eq(#r.faults, 0)
end)

test("a renewal that fails gives the provider's own error, and tells people once", function(t)
  t:sink("ops")
  renewing(t, { { status = 400, body = { error = "invalid_grant" } } }, { to = "ops" })
  provider(t, { EXPIRED, EXPIRED })
  t:eq(t:call({ model = "m" }).status, 401)
  t:eq(t:call({ model = "m" }).status, 401)
  t:eq(#t:requests("token"), 1)
  t:advance(5)
  t:eq(#t:alerts(), 1)
  t:match(t:alerts()[1].text, "credential c could not be renewed")
  t:match(t:alerts()[1].text, "log in again")
end)

test("the alert is resolved when a later renewal works", function(t)
  t:sink("ops")
  renewing(t, { { status = 500 }, granted("fresh") }, { to = "ops" })
  provider(t, { EXPIRED, EXPIRED, OK })
  t:eq(t:call({ model = "m" }).status, 401)
  t:advance(31) -- the cooldown after a failed renewal
  t:eq(t:call({ model = "m" }).status, 200)
  t:advance(5)
  t:eq(#t:alerts(), 2)
  t:eq(t:alerts()[2].key, t:alerts()[1].key)
  t:match(t:alerts()[2].text, "renewed again")
end)

test("without a sink a failed renewal is no fault", function(t)
  renewing(t, { { status = 500 } })
  provider(t, { EXPIRED })
  local r = t:call { model = "m" }
  t:eq(r.status, 401)
  t:eq(#r.faults, 0)
end)

test("a renewal in the background that fails is told, too", function(t)
  t:sink("ops")
  t:use("token_refresh", { to = "ops" })
  t:emit("credential_failed", { credential = "c", error = "no answer within 30 s" })
  t:advance(1)
  t:match(t:alerts()[1].text, "no answer within 30 s")
end)

test("other events are none of its business", function(t)
  t:sink("ops")
  t:use("token_refresh", { to = "ops" })
  t:eq(t:emit("deployed", { version = "1" }), nil)
  t:advance(1)
  t:eq(#t:alerts(), 0)
end)
