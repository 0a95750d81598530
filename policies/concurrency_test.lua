local SLOW = { status = 200, delay = 3 }

local function bulkhead(t, more)
  local params = { slots = 2, by = "target", max_wait = 100, max_waiting = 100, retry_after = 1 }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("concurrency", params)
end

local function steps(step, n)
  local list = {}
  for i = 1, n do list[i] = step end
  return list
end

test("so many at a time, the others in order", function(t)
  bulkhead(t)
  t:provider(steps(SLOW, 6))
  for i, call in ipairs(t:calls(6, { model = "m" })) do
    t:eq(call.status, 200)
    t:near(call.elapsed, 3 + (i - 1) // 2 * 3, 0.001)
  end
end)

test("targets have places of their own", function(t)
  bulkhead(t, { slots = 1 })
  t:provider(steps(SLOW, 2))
  for _, call in ipairs(t:calls { { model = "a" }, { model = "b" } }) do t:eq(call.elapsed, 3) end
end)

test("or share those of a provider", function(t)
  bulkhead(t, { slots = 1, by = "provider" })
  t:provider(steps(SLOW, 2))
  t:near(t:calls({ { model = "a" }, { model = "b" } })[2].elapsed, 6, 0.001)
end)

test("who is refused gets 503 and Retry-After", function(t)
  bulkhead(t, { slots = 1, max_wait = 0, retry_after = 2 })
  t:provider { SLOW }
  local calls = t:calls(2, { model = "m" })
  t:eq(calls[1].status, 200)
  t:eq(calls[2].status, 503)
  t:eq(calls[2].category, "overloaded")
  t:eq(calls[2].json.error.code, "concurrency")
  t:eq(calls[2].headers["retry-after"], "2")
end)

test("the line is bounded, and the wait", function(t)
  bulkhead(t, { slots = 1, max_waiting = 1, max_wait = 2 })
  t:provider { SLOW }
  local calls = t:calls(3, { model = "m" })
  t:eq(calls[2].status, 503)
  t:near(calls[2].elapsed, 2, 0.001)
  t:eq(calls[3].status, 503)
  t:eq(calls[3].elapsed, 0)
end)

test("an attempt gives its place back while it waits to try again", function(t)
  bulkhead(t, { slots = 1 })
  t:use("retry", { max_attempts = 2, base = 10, jitter = "none" })
  t:provider { { status = 503 }, SLOW, SLOW }
  local calls = t:calls(2, { model = "m" })
  t:eq(calls[1].status, 200)
  t:eq(calls[2].status, 200)
  t:eq(calls[2].elapsed, 3)
end)

test("by session the whole call keeps it", function(t)
  bulkhead(t, { slots = 1, by = "session" })
  t:use("retry", { max_attempts = 2, base = 10, jitter = "none" })
  t:provider { { status = 503 }, SLOW, SLOW }
  local s = { model = "m", headers = { ["x-session-id"] = "s" } }
  local calls = t:calls { s, s }
  t:near(calls[2].waited, 13, 0.001)
end)

test("a client's own are 429", function(t)
  bulkhead(t, { slots = 1, by = "client", max_wait = 0 })
  t:provider(steps(SLOW, 2))
  local calls = t:calls { { model = "m", client = "a" }, { model = "m", client = "a" }, { model = "m", client = "b" } }
  t:eq(calls[1].status, 200)
  t:eq(calls[2].status, 429)
  t:eq(calls[3].status, 200)
end)

test("attempts that a host makes wait for a place, too", function(t)
  bulkhead(t, { slots = 1 })
  t:provider("press", { SLOW, SLOW, host = true })
  local prints = t:calls(2, { target = "press/a4", path = "/v1/prints" })
  t:eq(prints[1].elapsed, 3)
  t:near(prints[2].elapsed, 6, 0.001)
end)
