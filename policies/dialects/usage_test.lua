-- Tokens and cost in the ledger, as each provider family tells them, and what stops spending.

local PRICES = { models = { "free", m = { input = 2, output = 10, cached = 0.5 } } }

local function provider(t, dialect, steps)
  steps.dialect, steps.models = dialect, steps.models or PRICES.models
  t:provider("p", steps)
  if dialect == "anthropic" then t:route { client_dialect = "anthropic" } end
end

local function tokens_of(tokens)
  if not tokens then return "none" end
  return ("%d+%d=%d, %d cached"):format(tokens.input, tokens.output, tokens.total, tokens.cached)
end

local CHAT = { id = "x", choices = { { index = 0, message = { content = "hi" }, finish_reason = "stop" } },
               usage = { prompt_tokens = 1000, completion_tokens = 100, total_tokens = 1100,
                         prompt_tokens_details = { cached_tokens = 400 } } }

local function delta(text, more)
  local event = { choices = { { index = 0, delta = { content = text }, finish_reason = json.null } } }
  for name, value in pairs(more or {}) do event[name] = value end
  return { data = event }
end

test("OpenAI: a whole answer", function(t)
  provider(t, "openai", { { body = CHAT } })
  local r = t:call { model = "m" }
  t:eq(tokens_of(r.ledger[1].tokens), "1000+100=1100, 400 cached")
  t:near(r.ledger[1].cost, (600 * 2 + 400 * 0.5 + 100 * 10) / 1e6, 1e-12)
  t:eq(tokens_of(r.tokens), "1000+100=1100, 400 cached")
  t:near(r.cost, r.ledger[1].cost, 1e-12)
end)

test("OpenAI: a stream, told in its last event, null in all others", function(t)
  provider(t, "openai", { { sse = {
    delta("a", { usage = json.null }), delta("b", { usage = json.null }),
    { data = { choices = json.array {}, usage = { prompt_tokens = 7, completion_tokens = 2 } } }, "[DONE]" } } })
  local r = t:call { model = "m", stream = true }
  t:eq(tokens_of(r.ledger[1].tokens), "7+2=9, 0 cached")
end)

test("OpenAI: Responses, whole and streamed", function(t)
  local usage = { input_tokens = 30, input_tokens_details = { cached_tokens = 10 }, output_tokens = 5 }
  provider(t, "openai", {
    { body = { object = "response", output = json.array {}, usage = usage } },
    { sse = { { event = "response.created", data = { type = "response.created", response = { usage = json.null } } },
              { event = "response.output_text.delta", data = { delta = "x" } },
              { event = "response.completed", data = { response = { usage = usage } } } } },
  })
  t:eq(tokens_of(t:call({ model = "m", path = "/v1/responses" }).tokens), "30+5=35, 10 cached")
  t:eq(tokens_of(t:call({ model = "m", path = "/v1/responses", stream = true }).tokens), "30+5=35, 10 cached")
end)

test("relatives: DeepSeek's and Moonshot's caches, Moonshot's stream, a reranker", function(t)
  provider(t, "openai", {
    { body = { usage = { prompt_tokens = 9, completion_tokens = 1, prompt_cache_hit_tokens = 4 } } },
    { body = { usage = { prompt_tokens = 9, completion_tokens = 1, cached_tokens = 3 } } },
    { sse = { delta("a"),
              { data = { choices = { { index = 0, delta = {}, finish_reason = "stop",
                                       usage = { prompt_tokens = 9, completion_tokens = 2 } } } } },
              "[DONE]" } },
    { body = { results = json.array {}, usage = { total_tokens = 12 } } },
  })
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "9+1=10, 4 cached")
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "9+1=10, 3 cached")
  t:eq(tokens_of(t:call({ model = "m", stream = true }).tokens), "9+2=11, 0 cached")
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "12+0=12, 0 cached")
end)

test("running totals: the last counts, not the sum", function(t)
  provider(t, "openai", { { sse = {
    delta("a", { usage = { prompt_tokens = 7, completion_tokens = 1 } }),
    delta("b", { usage = { prompt_tokens = 7, completion_tokens = 2 } }),
    delta("c", { usage = { prompt_tokens = 7, completion_tokens = 3 } }), "[DONE]" } } })
  t:eq(tokens_of(t:call({ model = "m", stream = true }).tokens), "7+3=10, 0 cached")
end)

local ANTHROPIC = { input_tokens = 10, cache_creation_input_tokens = 200, cache_read_input_tokens = 3000,
                    output_tokens = 1 }

test("Anthropic: a whole answer, its caches beside the input", function(t)
  provider(t, "anthropic", { { body = { type = "message", content = json.array {}, usage = ANTHROPIC } } })
  local r = t:call { model = "m" }
  t:eq(tokens_of(r.tokens), "3210+1=3211, 3000 cached")
  t:near(r.cost, (210 * 2 + 3000 * 0.5 + 10) / 1e6, 1e-12)
end)

test("Anthropic: a stream tells its input first and its output at the end", function(t)
  local function event(name, data)
    data.type = name
    return { event = name, data = data }
  end
  provider(t, "anthropic", { { sse = {
    event("message_start", { message = { id = "m", usage = ANTHROPIC } }),
    event("content_block_delta", { index = 0, delta = { type = "text_delta", text = "x" } }),
    event("message_delta", { delta = { stop_reason = "end_turn" }, usage = { output_tokens = 42 } }),
    event("message_stop", {}) } } })
  t:eq(tokens_of(t:call({ model = "m", stream = true }).tokens), "3210+42=3252, 3000 cached")
end)

test("KIMI: as OpenAI", function(t)
  provider(t, "kimi", { { body = CHAT } })
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "1000+100=1100, 400 cached")
end)

test("Azure: as OpenAI", function(t)
  provider(t, "azure", { { body = CHAT } })
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "1000+100=1100, 400 cached")
end)

test("Gemini: thoughts are output, running totals are not summed", function(t)
  local function answer(out)
    return { candidates = { { content = { parts = { { text = "x" } } }, finishReason = "STOP" } },
             usageMetadata = { promptTokenCount = 8, candidatesTokenCount = out, thoughtsTokenCount = 20,
                               cachedContentTokenCount = 4, totalTokenCount = 28 + out } }
  end
  provider(t, "gemini", { { body = answer(3) }, { sse = { { data = answer(1) }, { data = answer(2) } } } })
  t:route { client_dialect = "gemini" }
  t:eq(tokens_of(t:call({ model = "m" }).tokens), "8+23=31, 4 cached")
  t:eq(tokens_of(t:call({ model = "m", stream = true }).tokens), "8+22=30, 4 cached")
end)

test("what is not told is not guessed", function(t)
  for _, body in ipairs {
    '{"choices":[]}', '{"usage":null}', '{"usage":{}}', '{"usage":"1000"}', '{"usage":{"prompt_tokens":"7"}}',
    '{"usage":{"prompt_tokens":-7}}', '{"usage":{"prompt_tokens":1e300}}', '{"choices":[{"message":{"content":'
      .. '"{\\"usage\\":{\\"prompt_tokens\\":7}}"}}]}', '{"usage":{"prompt_tok', 'usage', '',
  } do
    provider(t, "openai", { { body = body } })
    local r = t:call { model = "m" }
    t:eq(tokens_of(r.ledger[1].tokens), "none", body)
    t:eq(r.cost, nil, body)
  end
end)

test("a failed attempt counts when the provider says what it used", function(t)
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  provider(t, "openai", { { status = 500, body = { error = { message = "x" }, usage = CHAT.usage } }, { body = CHAT } })
  local r = t:call { model = "m" }
  t:eq(tokens_of(r.ledger[1].tokens), "1000+100=1100, 400 cached")
  t:eq(tokens_of(r.tokens), "2000+200=2200, 800 cached")
  t:near(r.cost, 2 * r.ledger[1].cost, 1e-12)
end)

test("a stream that is cut has what it told until then", function(t)
  provider(t, "openai", { { sse = { delta("a", { usage = { prompt_tokens = 7, completion_tokens = 1 } }), delta("b") },
                            cut = true } })
  local r = t:call { model = "m", stream = true }
  t:eq(r.ok, false)
  t:eq(tokens_of(r.ledger[1].tokens), "7+1=8, 0 cached")
end)

test("an answer too long to be held is read at its end", function(t)
  local chunks = { '{"data":["' }
  for i = 2, 40 do chunks[i] = ("x"):rep(16 * 1024) end
  chunks[41] = '"],"usage":{"prompt_tok'
  chunks[42] = 'ens":8,"total_tokens":8}}'
  provider(t, "openai", { { chunks = chunks } })
  local r = t:call { model = "m", path = "/v1/embeddings" }
  t:eq(r.ok, true)
  t:eq(tokens_of(r.tokens), "8+0=8, 0 cached")
end)

test("prices: the most specific model counts, and cached input costs as input unless said", function(t)
  provider(t, "openai", { { body = CHAT }, { body = CHAT }, { body = CHAT },
    models = { "plain", ["*"] = { input = 1 }, ["gpt-*"] = { input = 3, output = 0 } } })
  t:near(t:call({ model = "plain" }).cost, 1000 / 1e6, 1e-12)
  t:near(t:call({ model = "gpt-9" }).cost, 3000 / 1e6, 1e-12)
  provider(t, "openai", { { body = CHAT }, models = { m = { output = 5 } } })
  t:eq(t:call({ model = "unpriced" }).cost, nil)
end)

test("prices that cannot be are refused in clear words", function(t)
  local function complaint(models)
    return t:refused(function()
      t:declare('provider "z" { base_url = "http://z.test", dialect = "openai", models = ' .. models .. ' }')
    end)
  end
  t:match(complaint '{ m = { input = -1 } }', "models.m.input must be a number 0..1000000")
  t:match(complaint '{ m = { inptu = 1 } }', 'no field "models.m.inptu"; did you mean "input"?')
  t:match(complaint '{ m = 3 }', "models.m must be its price per million tokens")
  t:match(complaint '{ m = {} }', "needs input or output")
  t:match(complaint '{ 3 }', "element 1 is 3")
  t:eq(complaint '{ "a", "b", ["c-*"] = { input = 1, output = 2, cached = 0 } }', nil)
end)

test("the record of what a policy saw has tokens and cost", function(t)
  t:use("circuit_breaker", { failures = 5, cooldown = 10 })
  provider(t, "openai", { { body = CHAT },
    { sse = { delta("a"), { data = { choices = json.array {}, usage = CHAT.usage } }, "[DONE]" } }, secret = "KEY" })
  for _, stream in ipairs { false, true } do -- a stream's are known at its end, and that is when it is told
    local r = t:call { model = "m", stream = stream }
    local seen
    for _, event in ipairs(r.events) do seen = event.handler == "on_outcome" and event or seen end
    t:eq(seen.tokens.total, 1100)
    t:near(seen.cost, r.cost, 1e-12)
    t:eq(seen.key, "KEY")
  end
end)

-- max_cost and max_wait -----------------------------------------------------------------------------------------------

local function dear(status)
  return { status = status, body = { error = { message = "x" }, usage = { prompt_tokens = 1000000 } } }
end

test("max_cost: no further attempt once the call has cost that much", function(t)
  t:use("retry", { max_attempts = 9, base = 0, cap = 1, jitter = "none" })
  t:route { max_cost = 4 }
  provider(t, "openai", { dear(500), dear(500), dear(500), dear(500) })
  local r = t:call { model = "m" }
  t:eq(r.status, 500)
  t:eq(r.upstream_calls, 2)
  t:near(r.cost, 4, 1e-9)
end)

test("max_cost: nor a fallback", function(t)
  t:use("fallback_model", { models = { m = { "p/n" } }, categories = {}, never = {} })
  t:route { max_cost = 1 }
  provider(t, "openai", { dear(500), { body = CHAT } })
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("max_cost: what has no price costs nothing", function(t)
  t:use("retry", { max_attempts = 3, base = 0, cap = 1, jitter = "none" })
  t:route { max_cost = 0.001 }
  provider(t, "openai", { dear(500), dear(500), dear(500) })
  t:eq(t:call({ model = "free" }).upstream_calls, 3)
end)

test("max_wait: backoff adds up, then the next policy is asked", function(t)
  t:use("retry", { max_attempts = 9, base = 4, cap = 4, jitter = "none" })
  t:use("fallback_model", { models = { m = { "p/n" } }, categories = {}, never = {} })
  t:route { max_wait = 10, deadline = 120 }
  provider(t, "openai", { { status = 500 }, { status = 500 }, { status = 500 }, { body = CHAT } })
  local r = t:call { model = "m" }
  t:eq(r.status, 200)
  t:eq(r.waited, 8)
  t:eq(r.target, "p/n")
end)

test("max_wait: a server that asks for more is not waited for", function(t)
  t:use("retry", { max_attempts = 9, base = 0, cap = 1, jitter = "none" })
  t:route { max_wait = 10, deadline = 120 }
  provider(t, "openai", { { status = 429, headers = { ["retry-after"] = "11" } }, { body = CHAT } })
  local r = t:call { model = "m" }
  t:eq(r.status, 429)
  t:eq(r.waited, 0)
  t:eq(r.headers["retry-after"], "11")
end)

test("max_wait = 0: nothing waits, what need not wait goes on", function(t)
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  t:route { max_wait = 0 }
  provider(t, "openai", { { status = 500 }, { body = CHAT }, { status = 503, headers = { ["retry-after"] = "1" } } })
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ model = "m" }).upstream_calls, 1)
end)

test("max_wait: a renewal that takes too long", function(t)
  t:credential("c", { { body = { access_token = "fresh", expires_in = 3600 }, delay = 20 }, grant = "oauth",
                      access_token = true })
  t:use("token_refresh", {})
  t:route { max_wait = 3, deadline = 120 }
  local expired = { status = 401, body = { error = { message = "expired", code = "token_expired" } } }
  t:provider("p", { expired, credential = "c" })
  local r = t:call { model = "m" }
  t:eq(r.status, 401)
  t:eq(r.waited, 3)
end)

test("max_wait: a first token that does not come", function(t)
  t:credential("c", { { body = { access_token = "fresh", expires_in = 3600 }, delay = 20 }, grant = "oauth",
                      access_token = false })
  t:route { max_wait = 3, deadline = 120 }
  t:provider("p", { { body = CHAT }, credential = "c" })
  local r = t:call { model = "m" }
  t:eq(r.status, 504)
  t:eq(r.json.error.code, "max_wait")
  t:eq(r.elapsed, 3)
  t:eq(r.upstream_calls, 0)
end)

test("limits that cannot be are refused", function(t)
  local function complaint(field)
    return t:refused(function() t:declare('route "/z/*" { to = "p", ' .. field .. ' }') end)
  end
  t:match(complaint "max_cost = -1", "max_cost must be a number")
  t:match(complaint 'max_wait = "10"', "max_wait must be a number")
  t:eq(complaint "max_cost = 0.5, max_wait = 0", nil)
end)
