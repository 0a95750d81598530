-- The Lua module in a stock interpreter; LUA_CPATH says where it is. Nothing here needs a network.
local parry = require "parry"

local folder = (os.getenv("PARRY_SOURCE") or ".") .. "/tests/install/policies"
local failures, ran = 0, 0

local function usual(more)
  local options = { policy_dir = folder }
  for name, value in pairs(more or {}) do options[name] = value end
  return assert(parry.new(options))
end

local function failed(status, more)
  local event = { route = "/jobs", target = "own/job", status = status }
  for name, value in pairs(more or {}) do event[name] = value end
  return event
end

local function asking() return failed(503, { route = "/asks", code = "E17" }) end

-- A call that nobody answers.
local function request(more)
  local call = {
    path = "/v1/chat/completions",
    headers = { ["Content-Type"] = "application/json" },
    body = '{"model":"m","messages":[{"role":"user","content":"hello"}]}',
  }
  for name, value in pairs(more or {}) do call[name] = value end
  return call
end

local function run_out(engine)
  while engine:run(1) > 0 do end
end

-- fn must raise a text that has `words`.
local function raises(words, fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then error("did not raise: " .. words, 2) end
  if not tostring(message):find(words, 1, true) then error(("raised %q"):format(tostring(message)), 2) end
end

local function equal(got, wanted)
  if got ~= wanted then error(("got %s, wanted %s"):format(tostring(got), tostring(wanted)), 2) end
end

local function test(name, fn)
  ran = ran + 1
  local ok, message = xpcall(fn, debug.traceback)
  print((ok and "ok " or "FAILED ") .. name)
  if not ok then
    failures = failures + 1
    io.stderr:write(name, ": ", tostring(message), "\n")
  end
end

test("misuse raises, the world's failures are nil, err", function()
  raises("an argument is wrong", parry.new, {})
  raises("no option is called 'polcy_dir'", parry.new, { polcy_dir = "x" })
  raises("policy_dir must be a string", parry.new, { policy_dir = 1 })
  raises("has a NUL inside", parry.new, { policy_dir = "a\0b" })
  raises("table expected", parry.new)
  local engine, err = parry.new { init = "route (" }
  equal(engine, nil)
  equal(err.code, "EPOLICY")
  assert(err.findings:find("init.lua:1", 1, true), err.findings)
  equal(tostring(err), err.findings)
end)

test("decisions are tables", function()
  local engine <close> = usual()
  local decision = assert(engine:decide(failed(503)))
  equal(decision.action, "retry")
  equal(decision.policy, "retry")
  assert(decision.after >= 0)
  equal(engine:decide(failed(400)).action, "fail")
  assert(engine:decide(failed(503, { headers = { ["retry-after"] = "7" } })).after >= 7)
  assert(engine:decide(failed(503, { headers = { { "retry-after", "7" } } })).after >= 7)
  assert(engine:decide(asking()).body:find("nobody to ask", 1, true))
  raises("status must be a number", engine.decide, engine, { status = "503" })
  raises("headers must be", engine.decide, engine, { headers = { 1 } })
  raises("table expected", engine.decide, engine)
end)

test("numbers that C has not, and texts that it would cut, are refused", function()
  local engine <close> = usual()
  for _, wrong in ipairs { 0 / 0, 1 / 0, 1e300, -1, 503.5 } do
    raises("status must be", engine.decide, engine, failed(wrong))
    raises("attempt must be", engine.decide, engine, failed(503, { attempt = wrong }))
    raises("threads must be", parry.new, { policy_dir = folder, threads = wrong })
  end
  raises("retry_after must be", engine.decide, engine, failed(503, { retry_after = 0 / 0 }))
  equal(engine:decide(failed(503.0)).action, "retry")
  raises("no attempt", engine.attempt_done, engine, 1, -1, { ok = true })
  raises("NUL inside", engine.emit, engine, "a\0b")
  raises("NUL inside", engine.emit, engine, "a", "{}\0")
  raises("NUL inside", engine.register, engine, "a\0b", print)
  raises("NUL inside", engine.reply, engine, 1, "1\0")
  local cyclic = {}
  cyclic[1], cyclic[2] = cyclic, cyclic
  raises("headers must be", engine.decide, engine, failed(503, { headers = { cyclic } }))
  local many = {}
  for i = 1, 100000 do many["h" .. i] = "v" end
  raises("an argument is wrong", engine.decide, engine, failed(503, { headers = many }))
end)

test("an engine may close another one in its callback", function()
  local first, second = usual(), usual()
  local category
  second:call(request { on_done = function(outcome) category = outcome.category end })
  first:call(request { on_done = function() second:close() end })
  run_out(first)
  equal(category, "cancelled")
  first:close()
end)

test("a call blocks, or tells its callbacks", function()
  local engine <close> = usual()
  local answer, err = engine:call(request())
  equal(answer, nil)
  equal(err.attempts, 1)
  equal(err.target, "nobody/m")
  assert(err.status >= 500 and #err.body > 0 and err.headers["content-type"])
  equal(tostring(err), err.message)
  local status, body, outcome
  local id = engine:call(request {
    on_headers = function(given, headers) status = headers["content-type"] and given end,
    on_data = function(data) body = (body or "") .. data end,
    on_done = function(given) outcome = given end,
  })
  equal(math.type(id), "integer")
  run_out(engine)
  equal(status, outcome.status)
  equal(outcome.ok, false)
  assert(#body > 0)
  local done, gone = engine:cancel(id)
  equal(done, nil)
  equal(gone.code, "ENOENT")
end)

test("a paused call goes on when it is told to", function()
  local engine <close> = usual()
  local pieces, outcome = 0, nil
  local id = engine:call(request {
    on_data = function() pieces = pieces + 1 return true end,
    on_done = function(given) outcome = given end,
  })
  while pieces == 0 do engine:run(1) end
  engine:resume(id)
  run_out(engine)
  assert(outcome)
end)

test("a cancelled call says so, and so does one of a closed engine", function()
  local engine = usual()
  local categories = {}
  local function on_done(outcome) categories[#categories + 1] = outcome.category end
  equal(engine:cancel(engine:call(request { on_done = on_done })), true)
  run_out(engine)
  engine:call(request { on_done = on_done })
  engine:close()
  equal(table.concat(categories, " "), "cancelled cancelled")
end)

test("what callbacks raise comes out of run, the first of it", function()
  local engine <close> = usual()
  local done = 0
  engine:call(request {
    on_headers = function() error({ mine = true }) end,
    on_data = function() error("never") end,
    on_done = function() done = done + 1 error("later") end,
  })
  local ok, message = pcall(run_out, engine)
  equal(ok, false)
  equal(message.mine, true)
  pcall(run_out, engine)
  equal(done, 1)
  equal(engine:run(0), 0)
  engine:call(request { on_done = function() error("done", 0) end })
  raises("done", run_out, engine)
  engine:call(request { on_done = function() coroutine.yield() end })
  raises("yield", run_out, engine)
  engine:call(request { on_done = function() error("at last", 0) end })
  raises("at last", engine.close, engine)
  raises("closed", engine.run, engine)
end)

test("callbacks cannot drive or close the engine", function()
  local engine <close> = usual()
  local seen = {}
  engine:call(request { on_done = function()
    seen.run, seen.run_said = pcall(engine.run, engine, 0)
    seen.close = pcall(engine.close, engine)
    seen.call = pcall(engine.call, engine, request())
    seen.decision = engine:decide(failed(503)).action
  end })
  run_out(engine)
  equal(seen.run or seen.close or seen.call, false)
  assert(seen.run_said:find("callback", 1, true))
  equal(seen.decision, "retry")
end)

test("use after close raises, forgetting is not a leak", function()
  local engine = usual()
  engine:close()
  engine:close()
  raises("closed", engine.decide, engine, failed(503))
  assert(tostring(engine):find("closed", 1, true))
  raises("parry.engine expected", engine.run, {})
  local forgotten = 0
  do
    local one = usual()
    one:call(request { on_done = function() forgotten = forgotten + 1 end })
  end
  collectgarbage()
  collectgarbage()
  equal(forgotten, 1)
end)

test("many calls at once, from a coroutine, while memory is collected", function()
  local engine <close> = usual()
  local done = 0
  for _ = 1, 50 do
    engine:call(request { on_done = function() done = done + 1 collectgarbage() end })
    collectgarbage()
  end
  coroutine.wrap(function() run_out(engine) end)()
  equal(done, 50)
end)

test("with threads of parry's own", function()
  local engine <close> = usual { threads = 2 }
  assert(engine:fd() >= 0)
  local done = 0
  for _ = 1, 10 do engine:call(request { on_done = function() done = done + 1 end }) end
  run_out(engine)
  equal(engine:dispatch(), 0)
  equal(done, 10)
end)

test("the host makes the attempts", function()
  local engine <close> = usual()
  local answer = assert(engine:call {
    path = "/jobs",
    target = "own/job",
    on_attempt = function(attempt)
      equal(attempt.provider, "own")
      if attempt.number < 2 then
        engine:attempt_done(attempt.call, attempt.number, { status = 503 })
      else
        engine:attempt_done(attempt.call, attempt.number, { ok = true, body = "done" })
      end
    end,
  })
  equal(answer.body, "done")
  equal(answer.attempts, 2)
end)

test("policies ask the host, now or later", function()
  local engine <close> = usual()
  local decision
  local function ready(given) decision = given end
  local function ask()
    decision = nil
    local now, err = engine:decide(asking(), ready)
    if now then return now end
    equal(err.code, "PENDING")
    run_out(engine)
    return decision
  end
  engine:register("now_what", function(arguments)
    assert(arguments:find("E17", 1, true))
    return '{"after":3}'
  end)
  equal(ask().after, 3)
  engine:register("now_what", function() return nil, "not today" end)
  equal(ask().why, "not today")
  engine:register("now_what", function() return "{" end)
  raises("not JSON", ask)
  engine:register("now_what", function() error("a bug", 0) end)
  raises("a bug", ask)
  local request_id
  engine:register("now_what", function(_, id) request_id = id end)
  engine:decide(asking(), ready)
  while not request_id do engine:run(1) end
  equal(engine:reply(request_id, '{"after":4}'), true)
  run_out(engine)
  equal(decision.after, 4)
  equal(select(2, engine:reply(request_id, "1")).code, "ENOENT")
  engine:register("now_what", nil)
  equal(ask().action, "respond")
end)

test("events, log lines, reports, status, metrics, reload", function()
  local lines = {}
  local engine <close> = usual { log = function(level, line) lines[#lines + 1] = level .. " " .. line end }
  assert(engine:emit("database_failover", '{"to":"b"}'))
  raises("an argument is wrong", engine.emit, engine, "x", "{")
  run_out(engine)
  for _ = 1, 100 do
    if table.concat(lines):find("database_failover", 1, true) then break end
    engine:run(0.05)
  end
  assert(table.concat(lines):find("database_failover", 1, true))
  equal(engine:report(failed(503, { seconds = 0.1 })), true)
  equal(engine:reload(), true)
  equal(engine:findings(), "")
  local status = engine:status()
  equal(status.version, parry.version)
  assert(#status.generation > 8 and status.policies >= 2)
  assert(#engine:metrics() > 0)
end)

print(("%d passed, %d failed"):format(ran - failures, failures))
os.exit(failures == 0, true)
