-- A whole host in Lua: one call to a provider that answers 503 once, and one question about a failure of its own.
-- Usage: lua5.4 host.lua BASE_URL, e.g. of `parry sim`: http://127.0.0.1:8421/v1
local parry = require "parry"

local engine <close> = assert(parry.new {
  init = ([[
    provider "sim" { base_url = "%s", dialect = "openai" }
    route "/v1/*" { to = "sim", chain = { use "retry" { base = 0.1 } } }
  ]]):format(arg[1] or "http://127.0.0.1:8421/v1"),
})

local answer = assert(engine:call {
  path = "/v1/chat/completions",
  headers = { ["Content-Type"] = "application/json", ["x-sim-fault"] = "code=503;times=1" },
  body = '{"model":"sim-ok","messages":[{"role":"user","content":"hello"}]}',
})
print(("status=%d attempts=%d target=%s"):format(answer.status, answer.attempts, answer.target))

local decision = assert(engine:decide { target = "sim/sim-ok", status = 503 })
print(decision.policy .. ": " .. decision.why)

os.exit(answer.attempts == 2 and decision.action == "retry", true)
