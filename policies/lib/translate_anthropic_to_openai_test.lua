local PATH = "/v1/messages"

local function completion(said, finish, usage)
  said.role = "assistant"
  return { status = 200, body = {
    id = "chatcmpl-1", object = "chat.completion", created = 1, model = "gpt-1",
    choices = { { index = 0, message = said, finish_reason = finish } },
    usage = usage or { prompt_tokens = 8, completion_tokens = 5, total_tokens = 13 },
  } }
end

local HELLO = completion({ content = "hello" }, "stop")

local function body(fields)
  local b = { model = "m", max_tokens = 50, messages = { { role = "user", content = "hi" } } }
  for name, value in pairs(fields or {}) do b[name] = value end
  return b
end

local function call(t, fields)
  local r = t:call { path = PATH, body = body(fields), headers = { ["anthropic-version"] = "2023-06-01",
                                                                   ["anthropic-beta"] = "x" } }
  t:eq(#r.faults, 0)
  return r
end

-- Claude at p is down; q is OpenAI's.
local function use(t, ...)
  t:dialect("anthropic")
  t:use("fallback_model", { models = { ["m"] = { "q/gpt" } }, categories = {}, never = {} })
  t:provider { { status = 529 } }
  t:provider("q", { dialect = "openai", ... })
end

test("a plain call: where it goes, what it says, what comes back", function(t)
  use(t, completion({ content = "hello", refusal = json.null }, "stop",
                    { prompt_tokens = 8, completion_tokens = 5, prompt_tokens_details = { cached_tokens = 6 } }))
  local r = call(t, { system = { { type = "text", text = "be brief", cache_control = { type = "ephemeral" } } },
                      temperature = 0.5, top_k = 3, stop_sequences = { "END" }, metadata = { user_id = "u1" } })
  local sent = t:sent(2)
  t:eq(sent.url, "http://q.test/v1/chat/completions")
  t:eq(sent.headers["anthropic-version"], nil)
  t:eq(sent.headers["anthropic-beta"], nil)
  t:eq(sent.json, { model = "gpt", max_tokens = 50, temperature = 0.5, stop = { "END" }, user = "u1", messages = {
    { role = "system", content = "be brief" }, { role = "user", content = "hi" } } })
  t:eq(r.status, 200)
  t:eq(r.headers["parry-translated"], "openai")
  t:eq(r.json.type, "message")
  t:eq(r.json.content, { { type = "text", text = "hello" } })
  t:eq(r.json.stop_reason, "end_turn")
  t:match(r.body, '"stop_sequence":null')
  t:eq(r.json.usage, { input_tokens = 2, output_tokens = 5, cache_read_input_tokens = 6,
    cache_creation_input_tokens = 0 })
end)

test("messages: parts, tool calls and their results", function(t)
  use(t, HELLO)
  call(t, { messages = {
    { role = "user", content = { { type = "text", text = "look" },
      { type = "image", source = { type = "base64", media_type = "image/png", data = "AAAA" } },
      { type = "image", source = { type = "url", url = "https://x.test/i.png" } },
      { type = "document", source = { type = "base64", media_type = "application/pdf", data = "JVBE" } } } },
    { role = "assistant", content = { { type = "thinking", thinking = "hm", signature = "s" },
      { type = "text", text = "let me see" }, { type = "tool_use", id = "toolu_1", name = "f", input = { a = 1 } },
      { type = "tool_use", id = "toolu_2", name = "g", input = json.decode("{}") } } },
    { role = "user", content = { { type = "tool_result", tool_use_id = "toolu_1", content = "r1" },
      { type = "tool_result", tool_use_id = "toolu_2", is_error = true,
        content = { { type = "text", text = "r2" }, { type = "text", text = "more" } } },
      { type = "text", text = "and now?" } } },
  } })
  local m = t:sent(2).json.messages
  t:eq(#m, 5)
  t:eq(m[1].content, { { type = "text", text = "look" },
    { type = "image_url", image_url = { url = "data:image/png;base64,AAAA" } },
    { type = "image_url", image_url = { url = "https://x.test/i.png" } },
    { type = "file", file = { filename = "document.pdf", file_data = "data:application/pdf;base64,JVBE" } } })
  t:eq(m[2], { role = "assistant", content = "let me see", tool_calls = {
    { id = "toolu_1", type = "function", ["function"] = { name = "f", arguments = '{"a":1}' } },
    { id = "toolu_2", type = "function", ["function"] = { name = "g", arguments = "{}" } } } })
  t:eq(m[3], { role = "tool", tool_call_id = "toolu_1", content = "r1" })
  t:eq(m[4], { role = "tool", tool_call_id = "toolu_2", content = "r2\nmore" })
  t:eq(m[5], { role = "user", content = "and now?" })
end)

local WEATHER = { name = "weather", description = "d", input_schema = { type = "object" },
                  cache_control = { type = "ephemeral" } }

test("tools and tool_choice", function(t)
  t:dialect("openai")
  local cases = {
    { nil, nil, nil }, { { type = "auto" }, "auto", nil }, { { type = "any" }, "required", nil },
    { { type = "none" }, "none", nil }, { { type = "auto", disable_parallel_tool_use = true }, "auto", false },
    { { type = "tool", name = "weather" }, { type = "function", ["function"] = { name = "weather" } }, nil },
  }
  local steps = {}
  for i = 1, 6 do steps[i] = HELLO end
  t:provider(steps)
  for i = 1, 6 do
    call(t, { tools = { WEATHER }, tool_choice = cases[i][1] })
    t:eq(t:sent(i).json.tools, { { type = "function", ["function"] = { name = "weather", description = "d",
                                                                       parameters = { type = "object" } } } })
    t:eq(t:sent(i).json.tool_choice, cases[i][2])
    t:eq(t:sent(i).json.parallel_tool_calls, cases[i][3])
  end
end)

test("tool calls in an answer keep every digit", function(t)
  use(t, completion({ content = json.null, tool_calls = {
    { id = "call_1", type = "function", ["function"] = { name = "f",
      arguments = '{"n":12345678901234567890,"e":[]}' } },
    { id = "call_2", type = "function", ["function"] = { name = "g", arguments = "" } } } }, "tool_calls"))
  local r = call(t, { tools = { WEATHER } })
  t:eq(r.json.stop_reason, "tool_use")
  t:match(r.body, '"input":{"n":12345678901234567890,"e":%[%]}')
  t:match(r.body, '"input":{},"name":"g"')
  t:eq(r.json.content[1].id, "call_1")
end)

test("finish reasons", function(t)
  t:dialect("openai")
  local cases = { { "stop", "end_turn" }, { "length", "max_tokens" }, { "content_filter", "refusal" }, { "new",
    "end_turn" } }
  local steps = {}
  for i, case in ipairs(cases) do steps[i] = completion({ content = "x" }, case[1]) end
  steps[5] = completion({ content = json.null, refusal = "no" }, "stop")
  t:provider(steps)
  for _, case in ipairs(cases) do t:eq(call(t).json.stop_reason, case[2], case[1]) end
  local r = call(t)
  t:eq(r.json.stop_reason, "refusal")
  t:eq(r.json.content[1].text, "no")
end)

test("models that think first are asked in their way", function(t)
  t:dialect("openai")
  t:route { to = { ["*"] = "p/gpt-5.1" } }
  t:provider { HELLO }
  call(t, { temperature = 0.3, top_p = 0.9, thinking = { type = "enabled", budget_tokens = 5000 } })
  local sent = t:sent(1).json
  t:eq(sent.max_completion_tokens, 50)
  t:eq(sent.max_tokens, nil)
  t:eq(sent.temperature, nil)
  t:eq(sent.top_p, nil)
  t:eq(sent.reasoning_effort, "medium")
end)

test("KIMI counts as OpenAI's", function(t)
  t:dialect("kimi")
  t:provider { HELLO, { status = 200, body = { errcode = -2001, errmsg = "the backend timed out" } } }
  t:eq(call(t).json.content[1].text, "hello")
  local r = call(t)
  t:eq(r.json.type, "error")
  t:match(r.json.error.message, "the backend timed out")
end)

test("what cannot be translated is refused by name, and nothing is sent", function(t)
  t:dialect("openai")
  t:provider {}
  local function user(block) return { messages = { { role = "user", content = { block } } } } end
  local cases = {
    { { hologram = 1 }, "hologram" }, { { container = "c" }, "container" }, { { mcp_servers = { { name = "x" } } },
      "mcp_servers" },
    { { tools = { { type = "web_search_20250305", name = "web_search" } } }, "web_search_20250305" },
    { { stop_sequences = { "1", "2", "3", "4", "5" } }, "stop_sequences" }, { { messages = "x" }, "messages" },
    { { messages = { { role = "user", content = "x" }, { role = "assistant", content = "y" } } }, "continued" },
    { { messages = { { role = "system", content = "x" } } }, "role system" },
    { user { type = "search_result" }, "search_result" }, { user { type = "image", source = { type = "file" } },
      "image" },
    { user { type = "document", citations = { enabled = true }, source = { type = "text", data = "x" } }, "citations" },
    { user { type = "tool_result", tool_use_id = "t", content = { { type = "image" } } }, "tool_result" },
    { { messages = { { role = "assistant", content = { { type = "server_tool_use" } } }, { role = "user",
      content = "x" } } },
      "server_tool_use" },
  }
  for _, case in ipairs(cases) do
    local r = call(t, case[1])
    t:eq(r.status, 400, case[2])
    t:eq(r.json.type, "error")
    t:eq(r.json.error.type, "invalid_request_error")
    t:match(r.json.error.message, case[2])
    t:eq(r.upstream_calls, 0)
  end
  t:match(t:call({ path = "/v1/messages/count_tokens", body = body() }).json.error.message, "count_tokens")
end)

test("errors of the target are told in the client's dialect", function(t)
  use(t, { status = 429, body = { error = { code = "insufficient_quota", type = "insufficient_quota",
    message = "no money" } } })
  local r = call(t)
  t:eq(r.json.type, "error")
  t:eq(r.json.error.type, "billing_error")
  t:match(r.json.error.message, "no money")
end)

-- Streams ------------------------------------------------------------------------------------------------------------

local function chunk(delta, finish, more)
  local data = { id = "chatcmpl-2", model = "gpt-2", choices = { { index = 0, delta = delta or {},
    finish_reason = finish } } }
  for name, value in pairs(more or {}) do data[name] = value end
  return { data = data }
end

local ROLE = chunk { role = "assistant", content = "" }
local COUNTS = chunk({}, nil, { choices = json.array {}, usage = { prompt_tokens = 7, completion_tokens = 9 } })

-- The stream as types in a row, and its data.
local function events(t, text)
  local names, list = {}, {}
  for kind, data in text:gmatch("event: (.-)\ndata: (.-)\n\n") do
    names[#names + 1] = kind
    list[#list + 1] = json.decode(data)
    t:eq(list[#list].type, kind)
  end
  return table.concat(names, " "), list
end

test("streams: text", function(t)
  use(t, { sse = { ROLE, chunk { content = "hel" }, chunk { content = "lo" }, chunk({}, "stop"), COUNTS, "[DONE]" } })
  local r = call(t, { stream = true })
  t:eq(t:sent(2).json.stream_options, { include_usage = true })
  local names, list = events(t, r.body)
  t:eq(names, "message_start content_block_start content_block_delta content_block_delta content_block_stop "
    .. "message_delta message_stop")
  t:eq(list[1].message.id, "chatcmpl-2")
  t:eq(list[1].message.model, "gpt-2")
  t:eq(list[2].content_block, { type = "text", text = "" })
  t:eq(list[3].delta, { type = "text_delta", text = "hel" })
  t:eq(list[6].delta.stop_reason, "end_turn")
  t:eq(list[6].usage.input_tokens, 7)
  t:eq(list[6].usage.output_tokens, 9)
end)

local function tool(index, id, name, arguments)
  return { tool_calls = { { index = index, id = id, type = id and "function", ["function"] = { name = name,
    arguments = arguments } } } }
end

test("streams: text and tool calls are blocks, one after the other", function(t)
  use(t, { sse = { ROLE, chunk { content = "see" }, chunk(tool(0, "c1", "f", "")), chunk(tool(0, nil, nil, '{"a"')),
                   chunk(tool(0, nil, nil, ":1}")), chunk(tool(1, "c2", "g", "{}")), chunk({}, "tool_calls"),
                     "[DONE]" } })
  local names, list = events(t, call(t, { stream = true, tools = { WEATHER } }).body)
  t:eq(names, "message_start content_block_start content_block_delta content_block_stop content_block_start "
    .. "content_block_delta content_block_delta content_block_stop content_block_start content_block_delta "
    .. "content_block_stop message_delta message_stop")
  t:eq(list[5].index, 1)
  t:eq(list[5].content_block, { type = "tool_use", id = "c1", name = "f", input = {} })
  t:eq(list[6].delta, { type = "input_json_delta", partial_json = '{"a"' })
  t:eq(list[9].index, 2)
  t:eq(list[12].delta.stop_reason, "tool_use")
end)

test("streams: the finish is enough, [DONE] may be missing", function(t)
  use(t, { sse = { ROLE, chunk { content = "x" }, chunk({}, "length") } })
  local names, list = events(t, call(t, { stream = true }).body)
  t:match(names, "message_stop$")
  t:eq(list[#list - 1].delta.stop_reason, "max_tokens")
end)

test("streams: an error after the content is told as Anthropic would", function(t)
  use(t, { sse = { ROLE, chunk { content = "x" }, { data = { error = { type = "server_error",
    message = "broke" } } } } })
  local r = call(t, { stream = true })
  t:eq(r.ok, false)
  t:eq(r.truncated, false)
  local names, list = events(t, r.body)
  t:match(names, "content_block_delta error$")
  t:eq(list[#list].error.message, "broke")
end)

test("streams: what cannot be translated before the content is a failure, after it an error", function(t)
  t:dialect("openai")
  t:use("fallback_model", { models = { ["m"] = { "q/gpt" } }, categories = {}, never = {} })
  t:provider { { sse = { ROLE, chunk(tool(0, "c", nil, "{}")) } } }
  t:provider("q", { { sse = { ROLE, chunk { content = "x" }, chunk { audio = { id = "a" } } } } })
  local r = call(t, { stream = true })
  t:eq(r.upstream_calls, 2)
  t:eq(r.ledger[1].code, "untranslatable")
  local names, list = events(t, r.body)
  t:match(names, "content_block_delta error$")
  t:match(list[#list].error.message, "audio")
end)

test("nonsense is refused, and is nobody's fault", function(t)
  t:dialect("openai")
  local odd = { json.null, true, 0, -1.5, "x", "", {}, { {} }, { a = {} }, { { type = "text" } }, { { role = "user" } },
                { { role = "user", content = { { type = "image", source = 1 } } } }, { { role = "assistant",
                  content = { 1 } } },
                { { role = "user", content = { { type = "tool_result", content = { 1 } } } } }, { type = "tool" } }
  local steps = {}
  for i = 1, 400 do steps[i] = HELLO end
  t:provider(steps)
  for _, name in ipairs { "messages", "system", "tools", "tool_choice", "stop_sequences", "metadata", "thinking",
    "temperature",
                          "max_tokens", "stream" } do
    for i, value in ipairs(odd) do
      local r = call(t, { [name] = value })
      t:ok(r.status == 200 or r.status == 400, name .. " " .. i)
    end
  end
end)

test("nonsense in an answer is a failure, and nobody's fault", function(t)
  t:dialect("openai")
  local bodies = { "[]", "1", "{}", '{"choices":1}', '{"choices":[1]}', '{"choices":[{"message":{"tool_calls":[1]}}]}',
                   '{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}}]}' }
  local steps = {}
  for i, text in ipairs(bodies) do steps[i] = { status = 200, body = text } end
  t:provider(steps)
  for _, text in ipairs(bodies) do
    local r = call(t)
    t:eq(r.ok, false, text)
    t:eq(r.ledger[1].code, "untranslatable", text)
  end
  local streams = {}
  for i, data in ipairs { "1", "x", {}, { choices = 1 }, { choices = { 1 } }, { choices = { { delta = 1 } } },
    { usage = 1 },
                          { choices = { { delta = { content = 1 } } } },
                            { choices = { { delta = { tool_calls = 1 } } } } } do
    streams[i] = { sse = { data, chunk { content = "x" }, chunk({}, "stop"), "[DONE]" } }
  end
  t:provider(streams)
  for _ = 1, #streams do call(t, { stream = true }) end
end)
