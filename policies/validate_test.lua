local OK = { status = 200 }
local HELLO = { { role = "user", content = "hello" } }

local function validate(t, more)
  local params = { models = {}, max_messages = 100, max_tokens = 100000, max_image = 4096, strict = false,
                   too_long = "pass", style = "client" }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("validate", params)
  t:otherwise(OK)
end

local function chat(t, body, path)
  body.model = body.model or "m"
  if body.messages == nil and path == nil then body.messages = HELLO end
  return t:call { body = body, path = path or "/v1/chat/completions" }
end

local function refused(t, body, field, text, path)
  local r = chat(t, body, path)
  t:eq(r.status, 400, field)
  t:eq(r.upstream_calls, 0, field)
  t:eq(#r.faults, 0, field)
  t:eq(r.json.error.param, field)
  if text then t:match(r.json.error.message, text) end
  return r
end

local function passes(t, body, path)
  local r = chat(t, body, path)
  t:eq(r.status, 200, r.body)
  t:eq(#r.faults, 0)
end

test("a good request passes as it came", function(t)
  validate(t)
  passes(t, { messages = HELLO, stream = false, temperature = 0, top_p = 1, n = 2, max_tokens = 5, stop = { "a" } })
  t:eq(t:sent(1).json.messages[1].content, "hello")
end)

test("all wrong fields are named at once, by path", function(t)
  validate(t)
  local r = refused(t, {
    messages = { { role = "user", content = "" }, { content = "x" }, { role = "tool", content = "42" } },
    stream = "yes", temperature = 3, max_tokens = 0, top_p = -1, n = 1.5,
  }, "messages[0].content")
  local error = r.json.error
  t:eq(error.type, "invalid_request_error")
  t:eq(error.code, "empty")
  local fields = {}
  for i, row in ipairs(error.details) do fields[i] = row.field end
  t:eq(table.concat(fields, " "),
    "messages[0].content messages[1].role messages[2].tool_call_id stream temperature top_p n max_tokens")
  for _, row in ipairs(error.details) do t:match(error.message, row.message:sub(1, 10)) end
  t:match(error.message, "temperature: must be 0 to 2, got 3")
end)

test("messages: missing, empty, not a list, too many, not objects", function(t)
  validate(t, { max_messages = 3 })
  local r = t:call { body = { model = "m" }, path = "/v1/chat/completions" }
  t:eq(r.json.error.param, "messages")
  t:match(r.json.error.message, "messages: is missing")
  refused(t, { messages = json.array {} }, "messages", "must not be empty")
  refused(t, { messages = "hello" }, "messages", "must be a list")
  refused(t, { messages = { HELLO[1], HELLO[1], HELLO[1], HELLO[1] } }, "messages", "at most 3")
  refused(t, { messages = { "hello" } }, "messages[0]", "must be an object")
  refused(t, { messages = { json.null } }, "messages[0]", "got null")
end)

test("roles: unknown ones pass unless strict", function(t)
  validate(t, { as = "loose" })
  passes(t, { messages = { { role = "critic", content = "x" } } })
  for _, role in ipairs { "system", "developer", "user", "assistant", "function" } do
    passes(t, { messages = { { role = role, content = "x" } } })
  end
  refused(t, { messages = { { role = 5, content = "x" } } }, "messages[0].role", "is missing")
end)

test("strict: unknown roles and parts are wrong", function(t)
  validate(t, { strict = true })
  refused(t, { messages = { { role = "critic", content = "x" } } }, "messages[0].role", "is no role")
  refused(t, { messages = { { role = "user", content = { { type = "smell", smell = "x" } } } } },
    "messages[0].content[0].type", "not known")
end)

test("assistants may say nothing when they call tools", function(t)
  validate(t)
  passes(t, { messages = { { role = "assistant", tool_calls = { { id = "c1", type = "function" } } },
                           { role = "tool", tool_call_id = "c1", content = "" } } })
  refused(t, { messages = { { role = "assistant" } } }, "messages[0].content", "is missing")
  refused(t, { messages = { { role = "assistant", content = "x", tool_calls = { { type = "function" } } } } },
    "messages[0].tool_calls[0].id")
end)

test("parts of a message", function(t)
  validate(t)
  passes(t, { messages = { { role = "user", content = {
    { type = "text", text = "what is this" },
    { type = "image_url", image_url = { url = "https://files.example/a.png" } },
    { type = "image_url", image_url = { url = "data:image/png;base64,iVBORw0KGgo=" } },
    { type = "input_audio", input_audio = { data = "x", format = "wav" } },
    { type = "something_new", anything = 1 },
  } } } })
  local r = refused(t, { messages = { { role = "user", content = {
    "text", { text = "x" }, { type = "text" }, { type = "image_url", image_url = {} },
    { type = "image_url", image_url = { url = "ftp://x/y" } }, { type = "text", text = 5 } } } } },
    "messages[0].content[0]")
  local fields = {}
  for i, row in ipairs(r.json.error.details) do fields[i] = row.field:gsub("messages%[0%]%.content", "") end
  t:eq(table.concat(fields, " "), "[0] [1].type [2].text [3].image_url.url [4].image_url.url [5].text")
end)

test("images: type and size", function(t)
  validate(t, { max_image = 2048 })
  local function picture(url)
    return { messages = { { role = "user", content = { { type = "image_url", image_url = { url = url } } } } } }
  end
  local where = "messages[0].content[0].image_url.url"
  refused(t, picture "data:text/html;base64,PGI+", where, "must be an http or https URL")
  refused(t, picture "data:image/svg+xml;base64,PHN2Zz4=", where, "none of png")
  refused(t, picture "data:image/png;base64,", where, "holds no image")
  refused(t, picture("data:image/png;base64," .. ("A"):rep(2100)), where, "longer than 2048")
  refused(t, picture("data:image/png;base64," .. ("A"):rep(900000)), where, "longer than 2048")
  refused(t, picture "javascript:alert(1)", where)
  refused(t, picture "http:///x", where)
  passes(t, picture("data:image/jpeg;base64," .. ("A"):rep(2000)))
end)

test("a long body with a picture in it is checked all the same", function(t)
  validate(t, { max_image = 20000000 })
  local body = '{"model":"m","temperature":9,"messages":[{"role":"user","content":[{"type":"image_url",'
    .. '"image_url":{"url":"data:image/png;base64,%s"}}]}]}'
  local text = ("A"):rep(30000)
  local parts = {}
  for i = 1, 4 do parts[i] = text end
  local r = t:call { body = body:format(table.concat(parts)), path = "/v1/chat/completions" }
  t:eq(r.status, 400)
  t:eq(r.json.error.param, "temperature")
  t:eq(#r.faults, 0)
end)

test("a body with more parts than can be checked passes, or is refused when told so", function(t)
  validate(t, { max_messages = 10000 })
  local many = '{"model":"m","messages":[{"role":"user","content":[' .. ("{},"):rep(60000) .. '{}]}]}'
  local r = t:call { body = many, path = "/v1/chat/completions" }
  t:eq(#r.faults, 0)
  t:eq(r.status, 200)
end)

test("and is refused when told so", function(t)
  validate(t, { too_long = "refuse" })
  local many = '{"model":"m","messages":[' .. ("[[]],"):rep(60000) .. '1]}'
  local r = t:call { body = many, path = "/v1/chat/completions" }
  t:eq(#r.faults, 0)
  t:eq(r.status, 413)
  t:eq(r.upstream_calls, 0)
  r = t:call { model = "m", path = "/v1/chat/completions", headers = { ["content-encoding"] = "gzip" } }
  t:eq(r.status, 413)
end)

test("more than twenty wrong fields are counted", function(t)
  validate(t)
  local list = {}
  for i = 1, 50 do list[i] = { role = "user", content = "" } end
  local r = refused(t, { messages = list }, "messages[0].content")
  t:eq(#r.json.error.details, 20)
  t:match(r.json.error.message, "and 30 more")
end)

test("Anthropic's messages, in their dialect", function(t)
  validate(t)
  t:route { client_dialect = "anthropic" }
  t:provider { OK, dialect = "anthropic" }
  local function ask(body)
    body.model = "m"
    return t:call { body = body, path = "/v1/messages" }
  end
  t:eq(ask({ messages = HELLO, max_tokens = 10, system = "be kind", temperature = 1 }).status, 200)
  local r = ask { messages = { { role = "system", content = "x" } }, temperature = 1.5, stop_sequences = "x" }
  t:eq(r.status, 400)
  t:eq(r.json.type, "error")
  t:eq(r.json.error.type, "invalid_request_error")
  local message = r.json.error.message
  t:match(message, "messages%[0%]%.role: the system prompt belongs into system")
  t:match(message, "temperature: must be 0 to 1")
  t:match(message, "max_tokens: is missing")
  t:match(message, "stop_sequences: must be a list")
  t:eq(r.upstream_calls, 0)
end)

test("Anthropic's images and documents", function(t)
  validate(t)
  t:route { client_dialect = "anthropic" }
  t:provider { OK, dialect = "anthropic" }
  local function ask(source)
    return t:call { path = "/v1/messages", body = { model = "m", max_tokens = 5, messages = {
      { role = "user", content = { { type = "image", source = source } } } } } }
  end
  t:eq(ask({ type = "base64", media_type = "image/png", data = "aGk=" }).status, 200)
  local long = ask { type = "base64", media_type = "image/png", data = ("A"):rep(9000) }
  t:match(long.json.error.message, "source.data: is longer than 4096 bytes")
  t:match(ask({ type = "base64", media_type = "image/tiff", data = "aGk=" }).json.error.message, "media_type")
  t:match(ask({ type = "url", url = "file:///etc/passwd" }).json.error.message, "source.url: must be an http")
end)

test("the other paths", function(t)
  validate(t)
  refused(t, {}, "input", "is missing", "/v1/embeddings")
  refused(t, { input = json.array {} }, "input", "must not be empty", "/v1/embeddings")
  passes(t, { input = { "a", "b" }, dimensions = 8 }, "/v1/embeddings")
  refused(t, { input = 5 }, "input", "must be a text or a list", "/v1/responses")
  passes(t, { input = "hello", max_output_tokens = 10 }, "/v1/responses")
  refused(t, { prompt = 5, max_tokens = "9" }, "prompt", "max_tokens: must be a whole number", "/v1/completions")
  passes(t, { whatever = 1 }, "/v1/audio/speech")
end)

test("GETs and paths that are none of its business pass", function(t)
  validate(t)
  t:eq(t:call({ method = "GET", path = "/v1/models" }).status, 200)
end)

test("models that are not offered", function(t)
  validate(t, { models = { "gpt-*", "kimi-k2" } })
  passes(t, { model = "gpt-5" })
  local r = refused(t, { model = "claude" }, "model", "is not offered here")
  t:eq(r.json.error.code, "model_not_found")
end)

test("a body that is no JSON object", function(t)
  validate(t)
  for _, body in ipairs { "[]", "[1]", "5", '"x"' } do
    local r = t:call { body = body, path = "/v1/chat/completions" }
    t:eq(r.status, 400, body)
    t:eq(r.upstream_calls, 0)
  end
end)

test("unknown fields of providers pass", function(t)
  validate(t)
  passes(t, { messages = HELLO, thinking = { type = "enabled" }, safety = json.array {}, reasoning_effort = "high" })
end)

test("bounds of tokens, tools", function(t)
  validate(t, { max_tokens = 1000 })
  refused(t, { max_completion_tokens = 1001 }, "max_completion_tokens", "at most 1000")
  refused(t, { tools = { { type = "function" } } }, "tools[0].function", "is missing")
  refused(t, { tools = { { type = "function", ["function"] = { name = "a b" } } } }, "tools[0].function.name")
  passes(t, { tools = { { type = "function", ["function"] = { name = "a_b", parameters = { type = "object" } } },
                        { type = "builtin_function", ["function"] = { name = "$web_search" } } } })
end)

test("in the house's shape", function(t)
  validate(t, { style = "house" })
  local r = chat(t, { temperature = 7 })
  t:eq(r.status, 400)
  t:eq(r.json.statusCode, 400)
  t:eq(r.json.details[1].field, "temperature")
  t:eq(r.json.requestId, r.id)
end)

test("texts of a request are in no log and no why", function(t)
  validate(t)
  local r = chat(t, { messages = { { role = "secret-role-7", content = {} } }, temperature = "sk-123456" })
  t:eq(r.status, 400)
  for _, why in ipairs(r.why) do
    t:ok(not why:find("secret-role-7", 1, true))
    t:ok(not why:find("sk-123456", 1, true))
  end
end)

-- Looking for the slashes at the end took a time that grew with the square of those inside: over budget, a fault for
-- each such call, and twenty faults take the policies back.
test("a path of slashes is no fault", function(t)
  t:use("validate", { style = "openai" })
  t:use("file_check", { style = "openai" })
  t:provider { { status = 200 }, { status = 200 } }
  for i, path in ipairs { "/v1/" .. ("/"):rep(15000) .. "x", "/v1/chat/completions" .. ("/"):rep(15000) } do
    local r = t:call { path = path, body = { model = "m", messages = {} } }
    t:eq(#r.faults, 0)
    t:eq(r.status, i == 1 and 200 or 400)
  end
end)
