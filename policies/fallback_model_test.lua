local OK = { status = 200 }
local BROKEN = { status = 500 }

-- A list of three, the call starting at p/m.
local function lists(t, more)
  local params = { models = { ["m"] = { "q/a", "q/b", "s/c" } }, categories = {}, never = {} }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("fallback_model", params)
end

test("goes on at the next target, without a wait, with that model in the body", function(t)
  lists(t)
  t:provider { BROKEN }
  t:provider("q", { OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "q/a")
  t:eq(r.waited, 0)
  t:eq(r.headers["parry-target"], "q/a")
  t:eq(t:sent(1).model, "m")
  t:eq(t:sent(2).model, "a")
end)

test("walks the list in order, each target once, then gives the last error", function(t)
  lists(t)
  t:route { max_targets = 10 }
  t:provider { BROKEN }
  t:provider("q", { { status = 502 }, { status = 503 } })
  t:provider("s", { { status = 529 } })
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 4)
  t:eq(r.status, 529)
  t:eq(t:sent(2).model, "a")
  t:eq(t:sent(3).model, "b")
  t:eq(t:sent(4).model, "c")
end)

test("max_targets of the route holds, whatever the list says", function(t)
  lists(t)
  t:route { max_targets = 2 }
  t:provider { BROKEN }
  t:provider("q", { BROKEN, OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.upstream_calls, 2)
  t:eq(r.status, 500)
end)

test("a model that is not listed stays where it is", function(t)
  lists(t)
  t:provider { BROKEN }
  t:provider("q", { OK })
  t:provider("s", {})
  local r = t:call { model = "other" }
  t:eq(r.status, 500)
  t:eq(r.upstream_calls, 1)
end)

test("errors that another target does not help stay where they are", function(t)
  lists(t)
  t:provider("q", {})
  t:provider("s", {})
  for _, status in ipairs { 400, 401, 409, 413, 422 } do
    t:provider { { status = status } }
    local r = t:call { model = "m" }
    t:eq(r.status, status)
    t:eq(r.upstream_calls, 1)
  end
end)

test("errors that another target helps go on", function(t)
  lists(t)
  t:provider("s", {})
  for _, step in ipairs { { status = 402 }, { status = 403 }, { status = 404 }, { status = 429 }, { status = 500 },
                          { status = 503 }, { status = 504 }, { curl = "connect" }, { curl = "timeout" } } do
    t:provider { step }
    t:provider("q", { OK })
    t:eq(t:call({ model = "m" }).target, "q/a", step.curl or step.status)
  end
end)

test("a Retry-After of the first target does not hold up the second", function(t)
  lists(t)
  t:provider { { status = 429, headers = { ["retry-after"] = "50" } } }
  t:provider("q", { OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.waited, 0)
end)

test("after retry it comes when the attempts are used up, and retries go on there", function(t)
  t:use("retry", { max_attempts = 2, base = 1, cap = 1, jitter = "none" })
  lists(t)
  t:provider { BROKEN, BROKEN }
  t:provider("q", { BROKEN, OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.upstream_calls, 4)
  t:near(r.waited, 2)
end)

test("a wait past the deadline goes on at the next target instead", function(t)
  t:use("retry", { max_attempts = 4, base = 1, cap = 1, jitter = "none" })
  lists(t)
  t:route { deadline = 20 }
  t:provider { { status = 503, headers = { ["retry-after"] = "60" } } }
  t:provider("q", { OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.target, "q/a")
  t:eq(r.waited, 0)
end)

test("keys: globs, the most specific counts", function(t)
  lists(t, { models = { ["*"] = { "q/any" }, ["gpt-*"] = { "q/gpt" }, ["gpt-4"] = { "q/four" } } })
  for model, target in pairs { ["gpt-4"] = "q/four", ["gpt-4o"] = "q/gpt", ["o1"] = "q/any" } do
    t:provider { BROKEN }
    t:provider("q", { OK })
    t:eq(t:call({ model = model }).target, target)
  end
end)

test("keys: with the provider", function(t)
  lists(t, { models = { ["p/*"] = { "q/from-p" }, ["r/*"] = { "q/from-r" } } })
  t:route { to = { ["r-*"] = "r", ["*"] = "p" } }
  t:provider { BROKEN }
  t:provider("r", { BROKEN })
  t:provider("q", { OK, OK })
  t:eq(t:call({ model = "m" }).target, "q/from-p")
  t:eq(t:call({ model = "r-1" }).target, "q/from-r")
end)

test("a target without a provider is another model of the first one", function(t)
  lists(t, { models = { ["m"] = { "q/a", "small" } } })
  t:provider { BROKEN, OK }
  t:provider("q", { BROKEN })
  local r = t:call { model = "m" }
  t:eq(r.target, "p/small")
  t:eq(t:sent(3).model, "small")
end)

test("model names may hold slashes", function(t)
  lists(t, { models = { ["meta/llama"] = { "q/meta/llama-3" } } })
  t:provider { BROKEN }
  t:provider("q", { OK })
  local r = t:call { model = "meta/llama" }
  t:eq(r.target, "q/meta/llama-3")
  t:eq(t:sent(2).model, "meta/llama-3")
end)

test("the list of the first target counts, however far the call has gone", function(t)
  lists(t, { models = { ["m"] = { "q/a", "q/b" }, ["a"] = { "q/never" } } })
  t:provider { BROKEN }
  t:provider("q", { BROKEN, OK })
  t:eq(t:call({ model = "m" }).target, "q/b")
end)

test("categories: a list of its own replaces the general one", function(t)
  lists(t, { models = { ["m"] = { "q/a" } }, categories = { context_length = { ["m"] = { "q/long" } } } })
  local long = { status = 400, body = { error = { message = "too long", code = "context_length_exceeded" } } }
  t:provider { long, BROKEN }
  t:provider("q", { OK, OK })
  t:eq(t:call({ model = "m" }).target, "q/long")
  t:eq(t:call({ model = "m" }).target, "q/a")
end)

test("categories: used up is used up", function(t)
  lists(t, { models = { ["m"] = { "q/a" } }, categories = { context_length = { ["m"] = { "q/long" } } } })
  local long = { status = 400, body = { error = { message = "too long", code = "context_length_exceeded" } } }
  t:provider { long }
  t:provider("q", { long, OK })
  local r = t:call { model = "m" }
  t:eq(r.status, 400)
  t:eq(r.upstream_calls, 2)
end)

test("categories: an error whose dialect would let it stay does so all the same", function(t)
  lists(t, { categories = { auth = { ["m"] = { "q/a" } } } })
  t:provider { { status = 401 } }
  t:provider("q", { OK })
  t:provider("s", {})
  t:eq(t:call({ model = "m" }).status, 401)
end)

test("never: these end the call here", function(t)
  lists(t, { never = { "content_policy", "permission" } })
  t:provider { { status = 403 } }
  t:provider("q", { OK })
  t:provider("s", {})
  local r = t:call { model = "m" }
  t:eq(r.status, 403)
  t:eq(r.upstream_calls, 1)
end)

test("a call without a model follows \"*\" only", function(t)
  lists(t, { models = { ["p"] = { "q/wrong" }, ["*"] = { "q/a" } } })
  t:provider { BROKEN }
  t:provider("q", { OK })
  t:eq(t:call({ path = "/v1/models", method = "GET" }).target, "q/a")
end)

test("it says why", function(t)
  lists(t)
  t:provider { BROKEN }
  t:provider("q", { OK })
  t:provider("s", {})
  t:match(t:call({ model = "m" }).why[1], "server at p/m; next for m")
end)

test("a target must be written out", function(t)
  lists(t, { models = { ["m"] = { "q/*" } } })
  t:provider("q", {})
  t:provider {}
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "must be a target \"provider/model\", written out")
end)

test("a target's provider must exist", function(t)
  lists(t, { models = { ["m"] = { "nobody/x" } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, "nobody")
end)

test("names in categories are checked", function(t)
  lists(t, { models = {}, categories = { contextlength = { ["m"] = { "p/x" } } } })
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'there is no category "contextlength"')
end)

local function many(step, times)
  local steps = {}
  for i = 1, times do steps[i] = step end
  return steps
end

test("neighbours with weights share the calls, and each is tried once", function(t)
  lists(t, { weights = { ["q/a"] = 3, ["q/b"] = 1 } })
  t:route { max_targets = 10 }
  t:provider(many(BROKEN, 200))
  t:provider("q", many(BROKEN, 400))
  t:provider("s", many(OK, 200))
  local first = { a = 0, b = 0 }
  for _ = 1, 200 do
    local r = t:call { model = "m" }
    t:eq(r.target, "s/c") -- no weight: after those that share
    local one, other = r.ledger[2].target, r.ledger[3].target
    t:ok(one ~= other)
    first[one:sub(-1)] = first[one:sub(-1)] + 1
  end
  t:ok(first.a > 120 and first.a < 180, ("q/a was first in %d of 200"):format(first.a))
end)

test("a weight of a target that no list has is refused", function(t)
  lists(t, { weights = { ["q/x"] = 3 } })
  t:provider("q", {})
  t:provider("s", {})
  local ok, why = pcall(t.call, t, { model = "m" })
  t:eq(ok, false)
  t:match(why, 'weights%["q/x"%]: no list has a target of that name')
end)

local function talk(t, session)
  return t:call { model = "m", headers = { ["x-session"] = session } }
end

test("a conversation stays with the fallback that answered it; others do not", function(t)
  lists(t, { stick = 600 })
  t:route { session = { header = "x-session" } }
  t:provider { BROKEN, OK, OK }
  t:provider("q", { OK, OK, OK })
  t:provider("s", {})
  t:eq(talk(t, "one").target, "q/a")
  local r = talk(t, "one")
  t:eq(r.target, "q/a")
  t:eq(r.attempts, 1)
  t:eq(talk(t, "two").target, "p/m")
  t:eq(t:call({ model = "m" }).target, "p/m")
  t:advance(599)
  t:eq(talk(t, "one").target, "q/a") -- and begins anew
end)

test("a conversation that was silent goes home", function(t)
  lists(t, { stick = 600 })
  t:route { session = { header = "x-session" } }
  t:provider { BROKEN, OK }
  t:provider("q", { OK })
  t:provider("s", {})
  talk(t, "one")
  t:advance(601)
  t:eq(talk(t, "one").target, "p/m")
end)

test("a fallback that fails sends its conversations home, then down the list", function(t)
  lists(t, { stick = 600 })
  t:route { session = { header = "x-session" }, max_targets = 5 }
  t:provider { BROKEN, OK, OK, BROKEN }
  t:provider("q", { OK, BROKEN, OK })
  t:provider("s", {})
  talk(t, "one")
  local r = talk(t, "one")
  t:eq(r.ledger[1].target, "q/a")
  t:eq(r.target, "p/m")
  r = talk(t, "one") -- home again
  t:eq(r.attempts, 1)
  t:eq(r.target, "p/m")
  r = talk(t, "one")
  t:eq(r.target, "q/a")
end)

-- LiteLLM #32140: signed thoughts, replayed at another provider, are an error of its.
local function thoughtful(t, params)
  lists(t, params)
  t:dialect("anthropic")
  t:provider { { status = 529 } }
  t:provider("q", { BROKEN, OK, dialect = "anthropic" })
  t:provider("s", { dialect = "anthropic" })
  return t:call { path = "/v1/messages", model = "m", body = { model = "m", max_tokens = 9,
    thinking = { type = "enabled", budget_tokens = 1024 }, messages = {
      { role = "user", content = "hi" },
      { role = "assistant", content = { { type = "thinking", thinking = "hm", signature = "s1" },
                                        { type = "text", text = "yes" } } },
      { role = "user", content = "and?" } } } }
end

test("what only the first provider understands is left behind", function(t)
  local r = thoughtful(t, { strip = true })
  t:eq(r.status, 200)
  t:eq(#t:sent(1).json.messages[2].content, 2)
  for i = 2, 3 do -- also at the second target of that provider
    t:eq(t:sent(i).json.messages[2].content, { { type = "text", text = "yes" } })
    t:eq(t:sent(i).json.thinking, nil)
    t:eq(#t:sent(i).json.messages, 3)
  end
end)

test("strip = false sends it all the same", function(t)
  local r = thoughtful(t, { strip = false })
  t:eq(r.status, 200)
  t:eq(t:sent(3).json.messages[2].content[1].signature, "s1")
end)

test("a request that stands on what the first provider keeps goes nowhere else", function(t)
  lists(t, { strip = true })
  t:provider { BROKEN }
  t:provider("q", { OK, OK })
  t:provider("s", { OK })
  local r = t:call { path = "/v1/responses", body = { model = "m", input = "and?", previous_response_id = "resp_1" } }
  t:eq(r.upstream_calls, 1)
  t:eq(r.ledger[2].code, "untranslatable")
  t:eq(r.ledger[3].code, "untranslatable")
  t:ok(r.status >= 400)
end)

test("attempts that a host makes go on at another of the host's providers", function(t)
  t:use("fallback_model", { models = { ["smtp/*"] = { "relay/mail" } }, categories = {}, never = {} })
  t:provider("smtp", { { category = "network", code = "ECONNREFUSED", not_sent = true }, host = true })
  t:provider("relay", { { body = "queued" }, host = true })
  local r = t:call { target = "smtp/mail", path = "/v1/mails" }
  t:eq(r.body, "queued")
  t:eq(r.target, "relay/mail")
end)

test("without a host a host's provider is refused, and the next one has its turn", function(t)
  lists(t, { models = { ["m"] = { "db/x", "q/a" } } })
  t:provider("db", { host = true })
  t:provider { BROKEN }
  t:provider("q", { OK })
  local r = t:call { model = "m", host = false }
  t:eq(r.target, "q/a")
  t:eq(r.ledger[2].code, "host_only")
  t:eq(r.upstream_calls, 2)
end)
