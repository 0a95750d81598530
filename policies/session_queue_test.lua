local SLOW = { status = 200, delay = 3 }
local CONFLICT = { status = 200, body = '{"errcode":-2005,"errmsg":"a stream is being written","data":null}' }

local function queue_up(t, more)
  local params = { key = "session", max_wait = 100, max_waiting = 16, conflicts = 5, pause = 0.5 }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("session_queue", params)
end

local function steps(step, n)
  local list = {}
  for i = 1, n do list[i] = step end
  return list
end

local function of(session, more)
  local call = { model = "m", headers = { ["x-session-id"] = session } }
  for name, value in pairs(more or {}) do call[name] = value end
  return call
end

test("one call of a conversation at a time, in order; others beside it", function(t)
  queue_up(t)
  t:provider(steps(SLOW, 4))
  local calls = t:calls { of "a", of "a", of "b", of "a" }
  t:near(calls[1].waited, 0, 0.001)
  t:near(calls[2].waited, 3, 0.001)
  t:near(calls[3].waited, 0, 0.001)
  t:near(calls[4].waited, 6, 0.001)
end)

test("calls without a conversation do not wait", function(t)
  queue_up(t)
  t:provider(steps(SLOW, 2))
  for _, call in ipairs(t:calls(2, { model = "m" })) do t:eq(call.waited, 0) end
end)

test("a conversation is its client's own", function(t)
  queue_up(t)
  t:provider(steps(SLOW, 2))
  local calls = t:calls { of("a", { client = "x" }), of("a", { client = "y" }) }
  t:eq(calls[2].waited, 0)
end)

test("a call keeps its turn while it tries again", function(t)
  queue_up(t)
  t:use("retry", { max_attempts = 2, base = 10, jitter = "none" })
  t:provider { { status = 503 }, SLOW, SLOW }
  local calls = t:calls { of "a", of "a" }
  t:eq(calls[1].status, 200)
  t:near(calls[2].waited, 13, 0.001)
end)

test("a conflict is tried again in its turn", function(t)
  queue_up(t, { pause = 0.5 })
  t:provider("k", { CONFLICT, CONFLICT, { status = 200, delay = 1 }, { status = 200 }, dialect = "kimi" })
  t:route { to = "k" }
  local calls = t:calls { of "a", of "a" }
  t:eq(calls[1].status, 200)
  t:eq(calls[1].attempts, 3)
  t:near(calls[1].waited, 1.5, 0.001)
  t:eq(calls[2].status, 200)
  t:eq(calls[2].attempts, 1)
  t:near(calls[2].waited, 2.5, 0.001)
end)

test("but not for ever", function(t)
  queue_up(t, { conflicts = 1 })
  t:provider("k", { CONFLICT, CONFLICT, dialect = "kimi" })
  t:route { to = "k" }
  t:eq(t:call(of "a").attempts, 2)
end)

test("the line is bounded", function(t)
  queue_up(t, { max_waiting = 1 })
  t:provider(steps(SLOW, 2))
  local calls = t:calls { of "a", of "a", of "a" }
  t:eq(calls[3].status, 429)
  t:eq(calls[3].json.error.code, "session_busy")
  t:eq(calls[3].headers["retry-after"], "1")
end)

test("a client that leaves leaves the line", function(t)
  queue_up(t)
  t:provider(steps(SLOW, 2))
  t:start(of "a")
  local leaver, stayer = t:start(of "a"), t:start(of "a")
  t:advance(1)
  t:cancel(leaver)
  t:run()
  t:near(stayer.waited, 3, 0.001)
end)

test("the conversation may be a header", function(t)
  queue_up(t, { header = "x-thread" })
  t:provider(steps(SLOW, 3))
  local function thread(name) return { model = "m", headers = { [name] = "1" } } end
  local calls = t:calls { thread "X-Thread", thread "x-thread", of "1" }
  t:near(calls[2].waited, 3, 0.001)
  t:eq(calls[3].waited, 0)
end)

test("or a field of the body", function(t)
  queue_up(t, { field = "metadata.thread" })
  t:provider(steps(SLOW, 3))
  local function body(thread) return { body = { model = "m", metadata = { thread = thread } } } end
  local calls = t:calls { body(7), body(7), body(8) }
  t:near(calls[2].waited, 3, 0.001)
  t:eq(calls[3].waited, 0)
end)

test("or what a function of lib/session_keys.lua says", function(t)
  queue_up(t, { key = "user" })
  t:provider(steps(SLOW, 3))
  local calls = t:calls {
    { body = { model = "m", user = "u" } },
    { body = { model = "m", metadata = { user_id = "u" } } },
    { body = { model = "m" } },
  }
  t:near(calls[2].waited, 3, 0.001)
  t:eq(calls[3].waited, 0)
end)

-- A field's text may hold NUL, which is no key: that was a fault for each such call, and twenty of them take the
-- policies back.
test("a conversation's name may hold any byte", function(t)
  t:use("session_queue", { key = "user", max_wait = 60, max_waiting = 16, conflicts = 0, pause = 0.5 })
  t:provider { { status = 200, delay = 2 }, { status = 200, delay = 2 }, { status = 200, delay = 2 } }
  local results = t:calls {
    { body = { model = "m", user = "a\0b" } }, { body = { model = "m", user = "a\0b" } },
    { body = { model = "m", user = "a\0c" } },
  }
  for i, elapsed in ipairs { 2, 4, 2 } do
    t:eq(results[i].status, 200)
    t:eq(#results[i].faults, 0)
    t:near(results[i].elapsed, elapsed, 0.01)
  end
end)
