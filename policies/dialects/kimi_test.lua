local OK = { status = 200 }

local function said(code, status)
  return { status = status or 200, body = { errcode = code, errmsg = "as it says", data = json.null } }
end

local function use(t, attempts)
  t:dialect("kimi")
  t:use("retry", { max_attempts = attempts, base = 0, cap = 1, jitter = "none", never = {} })
end

test("each code, inside a 200 and with its status", function(t)
  use(t, 1)
  local codes = {
    [-1000] = { "server", 500 }, [-1001] = { "invalid_request", 400 }, [-1002] = { "not_found", 404 },
    [-2000] = { "invalid_request", 400 }, [-2001] = { "server", 502 }, [-2002] = { "auth", 401 },
    [-2003] = { "invalid_request", 400 }, [-2004] = { "payload_too_large", 413 }, [-2005] = { "conflict", 429 },
    [-2006] = { "billing", 403 },
  }
  local steps = {}
  for code, want in pairs(codes) do
    steps[#steps + 1] = said(code, 200)
    steps[#steps + 1] = said(code, want[2])
  end
  t:provider(steps)
  for code, want in pairs(codes) do
    for _ = 1, 2 do
      local r = t:call { model = "m" }
      t:eq(r.ledger[1].category, want[1], code)
      t:eq(r.ledger[1].code, tostring(code))
      t:eq(r.ok, false)
      t:ne(r.status, 200)
    end
  end
end)

test("which ones are tried again", function(t)
  use(t, 2)
  for code, retried in pairs { [-1000] = true, [-2001] = true, [-2005] = true, [-1001] = false, [-1002] = false,
                               [-2000] = false, [-2002] = false, [-2003] = false, [-2004] = false, [-2006] = false } do
    t:provider { said(code), OK }
    local r = t:call { model = "m" }
    t:eq(r.upstream_calls, retried and 2 or 1, code)
    if not retried then t:call { model = "m" } end -- takes the step that is left
  end
end)

test("a code of the system's range that is not in the list is the system's", function(t)
  use(t, 1)
  t:provider { said(-1042) }
  t:eq(t:call({ model = "m" }).ledger[1].category, "server")
end)

test("any other code in a 200 is a failure that nobody can name", function(t)
  use(t, 1)
  t:provider { said(-2042) }
  local r = t:call { model = "m" }
  t:eq(r.ledger[1].category, "unknown")
  t:eq(r.ledger[1].code, "-2042")
end)

test("with a status the status says it", function(t)
  use(t, 1)
  t:provider { said(-2042, 503) }
  t:eq(t:call({ model = "m" }).ledger[1].category, "overloaded")
end)

test("0 is success, as a number and as a text", function(t)
  use(t, 1)
  for _, body in ipairs {
    '{"errcode":0,"errmsg":"","data":{}}', '{"errcode":"0","data":{}}', '{"errcode":null,"data":1}', '{"choices":[]}',
  } do
    t:provider { { status = 200, body = body } }
    local r = t:call { model = "m" }
    t:eq(r.ok, true, body)
    t:eq(r.body, body)
  end
end)

test("errors in OpenAI's form are understood, too", function(t)
  use(t, 1)
  t:provider { { status = 429, body = { error = { type = "exceeded_current_quota_error", message = "x" } } } }
  t:eq(t:call({ model = "m" }).ledger[1].category, "billing")
end)

test("an error before the content of a stream recovers", function(t)
  use(t, 2)
  t:provider {
    { sse = { { data = { choices = { { delta = { role = "assistant", content = "" } } } } },
              { data = { errcode = -2001, errmsg = "backend timed out" } } } },
    { sse = { { data = { choices = { { delta = { content = "good" } } } } }, "[DONE]" } },
  }
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, true)
  t:eq(r.upstream_calls, 2)
  t:eq(r.ledger[1].category, "server")
  t:eq(r.ledger[1].code, "-2001")
  t:match(r.body, "good")
end)

test("takes calls of OpenAI's clients, also as a fallback", function(t)
  t:use("fallback_model", { models = { ["*"] = { "q/kimi-k2" } }, categories = {}, never = {} })
  t:provider { { status = 500 } }
  t:provider("q", { OK, dialect = "kimi" })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.target, "q/kimi-k2")
end)

test("errcode 0 in a stream is no error", function(t)
  use(t, 1)
  t:provider { { sse = { { data = { errcode = 0, choices = { { delta = { content = "good" } } } } }, "[DONE]" } } }
  t:eq(t:call({ model = "m", stream = true }).ok, true)
end)

test("clients get OpenAI's form, with the status that fits", function(t)
  use(t, 1)
  t:provider { said(-2006) }
  local r = t:call { model = "m" }
  t:eq(r.status, 402)
  t:eq(r.json.error.type, "insufficient_quota")
  t:eq(r.json.error.message, "as it says")
end)
