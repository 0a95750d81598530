local OK = { status = 200 }
local BUSY = { status = 503 }

-- A retry whose waits are known.
local function exact(more)
  local params = { max_attempts = 4, base = 1, cap = 30, jitter = "none" }
  for name, value in pairs(more or {}) do params[name] = value end
  return params
end

test("waits as long as the server says", function(t)
  t:use("retry", { max_attempts = 3, base = 0.1, cap = 1, spread = 0 })
  t:provider { { status = 429, headers = { ["retry-after"] = "2" } }, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 2)
  t:eq(r.waited, 2)
end)

test("retry-after-ms is more precise than retry-after", function(t)
  t:use("retry", { max_attempts = 3, base = 0.1, cap = 1, jitter = "none", spread = 0 })
  t:provider { { status = 429, headers = { ["retry-after"] = "2", ["retry-after-ms"] = "1500" } }, OK }
  t:near(t:call({ model = "m" }).waited, 1.5)
end)

test("waits longer than the server says when its own wait is longer", function(t)
  t:use("retry", exact { base = 5 })
  t:provider { { status = 429, headers = { ["retry-after"] = "2" } }, OK }
  t:near(t:call({ model = "m" }).waited, 5)
end)

test("max_attempts counts the first attempt", function(t)
  t:use("retry", exact { max_attempts = 3 })
  t:provider { BUSY, BUSY, BUSY, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.upstream_calls, 3)
  t:eq(r.category, "overloaded")
end)

test("max_attempts = 1 is no retry", function(t)
  t:use("retry", exact { max_attempts = 1 })
  t:provider { BUSY, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("waits double up to the cap", function(t)
  t:use("retry", exact { base = 1, cap = 3 })
  t:provider { BUSY, BUSY, BUSY, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:near(r.waited, 1 + 2 + 3)
end)

test("first waits by status", function(t)
  local waits = { [429] = 5, [500] = 1, [502] = 1, [503] = 2, [504] = 2, [529] = 3 }
  t:use("retry", exact { base = 0.25, base_by_status = waits })
  local expected = 0
  for status, wait in pairs(waits) do
    t:provider { { status = status }, OK }
    t:near(t:call({ model = "m" }).waited, wait)
    expected = expected + 1
  end
  t:eq(expected, 6)
end)

test("first waits by status double, too", function(t)
  t:use("retry", exact { base = 0.25, base_by_status = { [429] = 5 } })
  t:provider { { status = 429 }, { status = 429 }, OK }
  t:near(t:call({ model = "m" }).waited, 5 + 10)
end)

test("a first wait by status may be longer than the cap", function(t)
  t:use("retry", exact { base = 0.25, cap = 1, base_by_status = { [429] = 5 } })
  t:provider { { status = 429 }, { status = 429 }, OK }
  t:near(t:call({ model = "m" }).waited, 5 + 5)
end)

test("full jitter stays between nothing and the exponential wait", function(t)
  t:use("retry", exact { jitter = "full", base = 4 })
  local sum = 0
  for _ = 1, 20 do
    t:provider { BUSY, OK }
    local r = t:call { model = "m" }
    t:eq(r.status, 200)
    t:ok(r.waited >= 0 and r.waited <= 4)
    sum = sum + r.waited
  end
  t:ok(sum > 20 and sum < 60, "20 waits of 2 s on average are not " .. sum)
end)

test("equal jitter is at least half the exponential wait", function(t)
  t:use("retry", exact { jitter = "equal", base = 4 })
  local different = {}
  for _ = 1, 10 do
    t:provider { BUSY, OK }
    local waited = t:call({ model = "m" }).waited
    t:ok(waited >= 2 and waited <= 4)
    different[#different + 1] = waited ~= different[1] or nil
  end
  t:ok(#different > 1, "all waits were the same")
end)

test("decorrelated jitter grows from the wait before", function(t)
  t:use("retry", exact { jitter = "decorrelated", base = 1, cap = 5, max_attempts = 4 })
  local grown = false
  for _ = 1, 10 do
    t:provider { BUSY, BUSY, BUSY, OK }
    local r = t:call { model = "m" }
    t:eq(r.status, 200)
    local before = 1
    for i = 2, #r.ledger do
      local wait = r.ledger[i].started - r.ledger[i - 1].ended
      t:ok(wait > 0.999 and wait < math.min(5, before * 3) + 0.001, "waited " .. wait)
      grown = grown or wait > 3.001 -- more than three times the base
      before = wait
    end
  end
  t:ok(grown)
end)

test("spread comes back later than the server asked, never earlier", function(t)
  t:use("retry", exact { base = 0.1, spread = 0.5 })
  local later = false
  for _ = 1, 10 do
    t:provider { { status = 429, headers = { ["retry-after"] = "10" } }, OK }
    local waited = t:call({ model = "m" }).waited
    t:ok(waited >= 10 and waited <= 15, "waited " .. waited)
    later = later or waited > 10.01
  end
  t:ok(later)
end)

test("patience: what takes longer is left to the next policy", function(t)
  t:use("retry", exact { patience = 10 })
  t:provider { { status = 429, headers = { ["retry-after"] = "11" } }, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.upstream_calls, 1)
  t:eq(r.headers["retry-after"], "11")
end)

test("patience: what does not is waited for", function(t)
  t:use("retry", exact { patience = 10 })
  t:provider { { status = 429, headers = { ["retry-after"] = "10" } }, OK }
  t:near(t:call({ model = "m" }).waited, 10)
end)

test("slow attempts are left to the next policy", function(t)
  t:use("retry", exact { slow = 2 })
  t:provider { { status = 503, delay = 3 }, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("fast attempts are tried again", function(t)
  t:use("retry", exact { slow = 2 })
  t:provider { { status = 503, delay = 1 }, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 2)
end)

test("never: a category", function(t)
  t:use("retry", exact { never = { "rate_limit" } })
  t:provider { { status = 429 }, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("never: a status, while others are tried again", function(t)
  t:use("retry", exact { never = { "500" } })
  t:provider { { status = 502 }, { status = 500 }, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 500)
  t:eq(r.upstream_calls, 2)
end)

test("never: the provider's code", function(t)
  t:use("retry", exact { never = { "slow_down" } })
  t:provider { { status = 503, body = { error = { message = "Slow down", code = "slow_down" } } }, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("what cannot pass is not tried again", function(t)
  t:use("retry", exact())
  for _, status in ipairs { 400, 401, 402, 403, 404, 413, 422 } do
    t:provider { { status = status } }
    local r = t:call { model = "m" }
    t:eq(r.status, status)
    t:eq(r.upstream_calls, 1)
  end
end)

test("what may pass is tried again", function(t)
  t:use("retry", exact { base = 0 })
  for _, step in ipairs { { status = 408 }, { status = 409 }, { status = 429 }, { status = 500 }, { status = 502 },
                          { status = 503 }, { status = 504 }, { status = 529 }, { curl = "connect" }, { curl = "dns" },
                          { curl = "timeout" }, { curl = "reset" } } do
    t:provider { step, OK }
    local r = t:call { model = "m", path = "/v1/chat/completions" }
    t:eq(r.status, 200, step.curl or step.status)
    t:eq(r.upstream_calls, 2)
  end
end)

test("an error before the first content of a stream is tried again, unseen by the client", function(t)
  t:use("retry", exact { base = 0 })
  t:provider {
    { sse = { { data = { choices = { { delta = { role = "assistant", content = "" } } } } },
              { data = { error = { message = "boom", type = "server_error" } } } } },
    { sse = { { data = { choices = { { delta = { content = "hello" } } } } },
              { data = { choices = { { delta = {}, finish_reason = "stop" } } } }, "[DONE]" } },
  }
  local r = t:call { model = "m", stream = true }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 2)
  t:match(r.body, "hello")
  t:ok(not r.body:find("boom", 1, true))
end)

test("after the first content of a stream nothing is tried again", function(t)
  t:use("retry", exact { base = 0 })
  t:provider { { sse = { { data = { choices = { { delta = { content = "hel" } } } } } }, cut = true }, OK }
  local r = t:call { model = "m", stream = true }
  t:eq(r.upstream_calls, 1)
  t:eq(r.ok, false)
  t:match(r.body, "hel")
  t:match(r.body, "error")
end)

test("a refused attempt is not tried again", function(t)
  t:use("circuit_breaker", { failures = 1, cooldown = 60, by = "target" })
  t:use("retry", exact { never = { "404" } })
  t:provider { { status = 500 }, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 503)
  t:eq(r.upstream_calls, 1)
  t:near(r.waited, 1)
end)

test("two instances keep their waits apart", function(t)
  local waits = { jitter = "decorrelated", base = 1, cap = 100 }
  local function with(more)
    for name, value in pairs(waits) do more[name] = value end
    return exact(more)
  end
  t:use("retry", with { as = "throttled", max_attempts = 2, never = { "server" } })
  t:use("retry", with { as = "broken", max_attempts = 3 })
  t:provider { { status = 429 }, { status = 500 }, OK }
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:ok(r.waited >= 2 and r.waited <= 6)
end)

test("nonsense in base_by_status is refused", function(t)
  t:use("retry", exact { base_by_status = { ["429"] = 5 } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "base_by_status: its keys are HTTP statuses as numbers, %[429%] = 5, got the text \"429\"")
end)

test("base_by_status is a table of statuses of errors", function(t)
  t:match(t:refused(function() t:use("retry", exact { base_by_status = { [200] = 5 } }) end),
          "from 400 to 599, got 200")
end)

test("a base_by_status that is no table is told as such", function(t)
  t:match(t:refused(function() t:use("retry", exact { base_by_status = 5 }) end),
          "must be a table .*, got 5")
end)

test("a wait in base_by_status has bounds", function(t)
  t:use("retry", exact { base_by_status = { [429] = 601 } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "base_by_status%[429%] must be 0..600 s")
end)

test("first waits by category, where the status is not listed", function(t)
  t:use("retry", exact { base_by_status = { [503] = 2 }, base_by_category = { overloaded = 7, rate_limit = 5 } })
  t:provider { BUSY, { status = 529 }, { status = 429 }, OK }
  t:near(t:call({ model = "m" }).waited, 2 + 7 * 2 + 5 * 4)
end)

test("nonsense in base_by_category is refused", function(t)
  t:use("retry", exact { base_by_category = { ratelimit = 5 } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'base_by_category: there is no category "ratelimit"')
end)

-- MISSION row 9: base x (1 + 0.2 x errors of the last five minutes).
test("adaptive: waits grow with the errors of the last minutes, and shrink when those are past", function(t)
  t:use("retry", exact { adaptive = 0.2, adaptive_window = 300, max_attempts = 2 })
  for seen = 1, 5 do
    t:provider { BUSY, OK }
    t:near(t:call({ model = "m" }).waited, 1 + 0.2 * seen)
  end
  t:advance(301)
  t:provider { BUSY, OK }
  t:near(t:call({ model = "m" }).waited, 1.2)
end)

test("adaptive: errors of another provider do not count", function(t)
  t:use("retry", exact { adaptive = 1, adaptive_window = 300, max_attempts = 2 })
  t:provider { BUSY, BUSY }
  t:provider("q", { BUSY, OK })
  t:call { model = "m" }
  t:route { to = "q" }
  t:near(t:call({ model = "m" }).waited, 2)
end)

local AWS = { transient = 14, throttled = 5, success = 1, reserve = 0 }
local REFILLED = { transient = 14, throttled = 5, success = 7, reserve = 0 }

test("a quota of tokens is used up by retries and refuses, without a wait", function(t)
  t:use("retry", exact { base = 0, quota = 30, quota_costs = AWS })
  t:provider { BUSY, { status = 500 }, { status = 500 }, OK }
  local r = t:call { model = "m" }      -- 5, then 14, then 14 that are not there
  t:eq(r.status, 500)
  t:eq(r.upstream_calls, 3)
  t:eq(r.waited, 0)
end)

test("calls that go well fill the quota again; a retry that worked gives back what it took", function(t)
  t:use("retry", exact { base = 0, quota = 14, quota_costs = REFILLED })
  local DOWN = { status = 500 }
  t:provider { DOWN, OK, DOWN, DOWN, DOWN, OK, OK, DOWN, OK }
  t:eq(t:call({ model = "m" }).upstream_calls, 2) -- took 14, gave them back
  t:eq(t:call({ model = "m" }).upstream_calls, 2) -- took 14, failed
  t:eq(t:call({ model = "m" }).upstream_calls, 1) -- nothing left
  t:call { model = "m" }
  t:call { model = "m" }                          -- 7 and 7
  t:eq(t:call({ model = "m" }).upstream_calls, 2)
end)

-- gRPC A6: ten tokens, a failure takes one, a success gives a tenth, nothing below half.
test("a quota in gRPC's manner stops at its reserve", function(t)
  t:use("retry", exact { base = 0, quota = 10,
                         quota_costs = { transient = 1, throttled = 1, success = 0.1, reserve = 0.5 } })
  local retried = 0
  for _ = 1, 8 do
    t:provider { BUSY, BUSY, BUSY, BUSY }
    retried = retried + t:call({ model = "m" }).upstream_calls - 1
  end
  t:eq(retried, 5)
end)

test("nonsense in quota_costs is refused", function(t)
  t:use("retry", exact { quota = 10, quota_costs = { transient = 1, throtled = 1 } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'quota_costs: no field "throtled"')
end)

-- ---- what is no HTTP at all ----------------------------------------------------------------------------------------

test("an attempt that a host makes is tried again for what the host says of it", function(t)
  t:use("retry", exact { base = 1, max_attempts = 3 })
  t:route { repeatable = true }
  t:provider("db", { { category = "conflict", code = "SQLITE_BUSY", message = "database is locked" },
                     { category = "overloaded", retry_after = 5 }, { body = "42 rows" }, host = true })
  local r = t:call { target = "db/report", path = "/v1/reports" }
  t:eq(r.body, "42 rows")
  t:eq(r.attempts, 3)
  t:eq(r.ledger[1].code, "SQLITE_BUSY")
  t:eq(r.waited, 6)
end)

test("what a host cannot name is given up, and what may have happened already", function(t)
  t:use("retry", exact { base = 1 })
  t:provider("db", { { code = "EIO" }, { category = "server" }, { category = "server", not_sent = true }, {},
                     host = true })
  t:eq(t:call({ target = "db/w", path = "/v1/writes" }).category, "unknown") -- nothing says that a wait would help
  t:eq(t:call({ target = "db/w", path = "/v1/writes" }).attempts, 1)         -- not repeatable
  t:eq(t:call({ target = "db/w", path = "/v1/writes" }).attempts, 2)         -- nothing had happened yet
end)

test("in the gateway a host's provider is a refused attempt that says so", function(t)
  t:use("retry", exact { base = 1 })
  t:provider("db", { {}, host = true })
  t:route { to = "db" }
  local r = t:call { model = "m", host = false }
  t:eq(r.status, 404)
  t:eq(r.ledger[1].code, "host_only")
  t:eq(r.ledger[1].refused, true)
  t:eq(r.attempts, 1)
end)
