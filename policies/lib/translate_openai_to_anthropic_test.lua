-- A call of OpenAI's at p, which is down, goes on at q, which is Anthropic's.
local function use(t, ...)
  t:dialect("openai")
  t:use("fallback_model", { models = { ["m"] = { "q/claude" } }, categories = {}, never = {} })
  t:provider { { status = 500 } }
  t:provider("q", { dialect = "anthropic", ... })
end

local function message(content, stop, usage)
  return { status = 200, body = {
    id = "msg_1", type = "message", role = "assistant", model = "claude-1", content = content, stop_reason = stop,
    stop_sequence = json.null, usage = usage or { input_tokens = 3, output_tokens = 5 },
  } }
end

local HELLO = message({ { type = "text", text = "hello" } }, "end_turn")

local function body(fields)
  local b = { model = "m", messages = { { role = "user", content = "hi" } } }
  for name, value in pairs(fields or {}) do b[name] = value end
  return b
end

-- What Anthropic was asked.
local function asked(t, fields)
  local r = t:call { body = body(fields) }
  t:eq(#r.faults, 0)
  t:eq(r.status, 200)
  return t:sent(2).json, t:sent(2)
end

test("a plain call: where it goes, what it says, what comes back", function(t)
  use(t, message({ { type = "text", text = "hel" }, { type = "text", text = "lo" } }, "end_turn",
                 { input_tokens = 3, output_tokens = 5, cache_read_input_tokens = 4, cache_creation_input_tokens = 2 }))
  local r = t:call { body = body { temperature = 1.5, top_p = 0.5, stop = "END", user = "u1", max_tokens = 77,
    seed = 4 },
                     headers = { ["openai-organization"] = "org" } }
  local sent = t:sent(2)
  t:eq(sent.url, "http://q.test/v1/messages")
  t:eq(sent.headers["anthropic-version"], "2023-06-01")
  t:eq(sent.headers["openai-organization"], nil)
  t:eq(sent.json, {
    model = "claude", max_tokens = 77, temperature = 1, stop_sequences = { "END" }, metadata = { user_id = "u1" },
    messages = { { role = "user", content = { { type = "text", text = "hi" } } } },
  })
  t:eq(r.status, 200)
  t:eq(r.headers["parry-target"], "q/claude")
  t:eq(r.headers["parry-translated"], "anthropic")
  t:eq(r.json.object, "chat.completion")
  t:eq(r.json.id, "msg_1")
  t:eq(r.json.model, "claude-1")
  t:eq(r.json.created, math.floor(t:now()))
  t:eq(r.json.choices[1].message.content, "hello")
  t:eq(r.json.choices[1].finish_reason, "stop")
  t:eq(r.json.usage, { prompt_tokens = 9, completion_tokens = 5, total_tokens = 14,
                       prompt_tokens_details = { cached_tokens = 4 } })
end)

test("messages: roles, parts, tool calls and their results", function(t)
  use(t, HELLO)
  local sent = asked(t, { messages = {
    { role = "system", content = "be brief" },
    { role = "developer", content = { { type = "text", text = "and kind" } } },
    { role = "user", content = "one" },
    { role = "user", content = { { type = "text", text = "two" }, { type = "text", text = "" },
      { type = "image_url", image_url = { url = "data:image/png;base64,AAAA", detail = "low" } },
      { type = "image_url", image_url = { url = "https://x.test/i.png" } },
      { type = "file", file = { filename = "a.pdf", file_data = "data:application/pdf;base64,JVBE" } } } },
    { role = "assistant", content = json.null, tool_calls = {
      { id = "call.1:0", type = "function", ["function"] = { name = "f", arguments = '{"a":1e20,"b":[],"c":{}}' } },
      { id = "call_2", type = "function", ["function"] = { name = "g", arguments = "" } } } },
    { role = "tool", tool_call_id = "call.1:0", content = "r1" },
    { role = "tool", tool_call_id = "call_2", content = { { type = "text", text = "r2" } } },
    { role = "user", content = "three" },
  } })
  t:eq(sent.system, { { type = "text", text = "be brief" }, { type = "text", text = "and kind" } })
  t:eq(#sent.messages, 3)
  t:eq(sent.messages[1].content, {
    { type = "text", text = "one" }, { type = "text", text = "two" },
    { type = "image", source = { type = "base64", media_type = "image/png", data = "AAAA" } },
    { type = "image", source = { type = "url", url = "https://x.test/i.png" } },
    { type = "document", title = "a.pdf", source = { type = "base64", media_type = "application/pdf", data = "JVBE" } },
  })
  t:eq(sent.messages[2].role, "assistant")
  t:eq(sent.messages[2].content[1].id, "call_1_0")
  t:match(t:sent(2).body, '"input":{"a":1e20,"b":%[%],"c":{}}')
  t:match(t:sent(2).body, '"input":{},"name":"g"')
  t:eq(sent.messages[3].content, {
    { type = "tool_result", tool_use_id = "call_1_0", content = { { type = "text", text = "r1" } } },
    { type = "tool_result", tool_use_id = "call_2", content = { { type = "text", text = "r2" } } },
    { type = "text", text = "three" },
  })
end)

local WEATHER = { type = "function", ["function"] = { name = "weather", description = "d", strict = true,
                                                      parameters = { type = "object", properties = { c = {} } } } }

test("tools and tool_choice", function(t)
  local cases = {
    { {}, nil }, { { tool_choice = "auto" }, { type = "auto" } }, { { tool_choice = "none" }, { type = "none" } },
    { { tool_choice = "required" }, { type = "any" } },
    { { tool_choice = { type = "function", ["function"] = { name = "weather" } } }, { type = "tool",
      name = "weather" } },
    { { parallel_tool_calls = false }, { type = "auto", disable_parallel_tool_use = true } },
    { { tool_choice = "required", parallel_tool_calls = false }, { type = "any", disable_parallel_tool_use = true } },
  }
  t:dialect("anthropic") -- the first target may speak another dialect, too
  local steps = {}
  for i = 1, #cases do steps[i] = HELLO end
  t:provider(steps)
  for i, case in ipairs(cases) do
    local fields = case[1]
    fields.tools = { WEATHER, { type = "function", ["function"] = { name = "bare" } } }
    t:eq(t:call({ body = body(fields) }).status, 200)
    t:eq(t:sent(i).json.tool_choice, case[2])
    t:eq(t:sent(i).json.tools, {
      { name = "weather", description = "d", input_schema = { type = "object", properties = { c = {} } } },
      { name = "bare", input_schema = { type = "object", properties = {} } },
    })
  end
end)

test("tool calls in an answer", function(t)
  use(t, message({ { type = "thinking", thinking = "hm", signature = "s" }, { type = "text", text = "let me see" },
                   { type = "tool_use", id = "toolu_1", name = "f", input = { a = { 1, 2 } } },
                   { type = "tool_use", id = "toolu_2", name = "g", input = json.decode("{}") } }, "tool_use"))
  local r = t:call { body = body { tools = { WEATHER } } }
  local said = r.json.choices[1].message
  t:eq(r.json.choices[1].finish_reason, "tool_calls")
  t:eq(said.content, "let me see")
  t:eq(said.reasoning_content, "hm")
  t:eq(said.tool_calls, {
    { id = "toolu_1", type = "function", ["function"] = { name = "f", arguments = '{"a":[1,2]}' } },
    { id = "toolu_2", type = "function", ["function"] = { name = "g", arguments = "{}" } },
  })
end)

test("stop reasons", function(t)
  t:dialect("anthropic")
  local cases = { { "end_turn", "stop" }, { "max_tokens", "length" }, { "stop_sequence", "stop" }, { "tool_use",
    "tool_calls" },
                  { "refusal", "content_filter" }, { "pause_turn", "stop" }, { "brand_new", "stop" } }
  local steps = {}
  for i, case in ipairs(cases) do steps[i] = message({ { type = "text", text = "x" } }, case[1]) end
  t:provider(steps)
  for _, case in ipairs(cases) do
    t:eq(t:call({ body = body {} }).json.choices[1].finish_reason, case[2], case[1])
  end
end)

test("max_tokens: the client's, by either name, else 4096", function(t)
  t:dialect("anthropic")
  t:provider { HELLO, HELLO, HELLO }
  for i, case in ipairs { { {}, 4096 }, { { max_tokens = 5 }, 5 }, { { max_completion_tokens = 6, max_tokens = 5 },
    6 } } do
    t:call { body = body(case[1]) }
    t:eq(t:sent(i).json.max_tokens, case[2])
  end
end)

test("what cannot be translated is refused by name, and nothing is sent", function(t)
  t:dialect("anthropic")
  t:provider {}
  local cases = {
    { { n = 2 }, "n above 1" }, { { logprobs = true }, "logprobs" }, { { logit_bias = { ["5"] = 1 } }, "logit_bias" },
    { { response_format = { type = "json_schema" } }, "response_format json_schema" }, { { hologram = 1 }, "hologram" },
    { { modalities = { "text", "audio" } }, "modality audio" }, { { tools = { { type = "custom" } } }, "type custom" },
    { { tool_choice = { type = "allowed_tools" } }, "tool_choice of type allowed_tools" },
    { { stop = "\n" }, "white space" }, { { functions = {} }, "functions" }, { { messages = "x" }, "messages" },
    { { messages = { { role = "function", content = "x" } } }, "role function" },
    { { messages = { { role = "user", content = { { type = "input_audio" } } } } }, "input_audio" },
    { { messages = { { role = "assistant", tool_calls = { { id = "a", type = "function", ["function"] = {
      name = "f", arguments = "[1]" } } } } } }, "arguments" },
    { { messages = { { role = "user", content = { { type = "file", file = { file_id = "f" } } } } } }, "file" },
  }
  for _, case in ipairs(cases) do
    local r = t:call { body = body(case[1]) }
    t:eq(r.status, 400, case[2])
    t:eq(r.json.error.code, "untranslatable")
    t:match(r.json.error.message, case[2])
    t:eq(r.upstream_calls, 0)
    t:eq(#r.faults, 0)
  end
end)

test("after another target's failure a client who may come back still does", function(t)
  use(t)
  local r = t:call { body = body { n = 2 } }
  t:eq(r.status, 502)
  t:eq(r.json.error.code, "untranslatable")
  t:eq(r.attempts, 2)
  t:eq(r.ledger[2].refused, true)
end)

test("a target that cannot be told is passed over", function(t)
  t:route { to = "q/claude" }
  t:use("retry", { max_attempts = 4, base = 1, cap = 1, jitter = "none", never = {} })
  t:use("fallback_model", { models = { ["q/claude"] = { "p/m" } }, categories = {}, never = {} })
  t:provider { { status = 200 } }
  t:provider("q", { dialect = "anthropic" })
  local r = t:call { body = body { n = 2 } }
  t:eq(r.status, 200)
  t:eq(r.target, "p/m")
  t:eq(r.waited, 0)
  t:eq(r.headers["parry-translated"], nil)
  t:eq(t:sent(1).json.n, 2)
end)

test("other paths are refused, those without a body pass", function(t)
  t:dialect("anthropic")
  t:provider { { status = 200, body = { data = {} } } }
  t:match(t:call({ path = "/v1/responses", body = { model = "m", input = "x" } }).json.error.message, "/v1/responses")
  t:eq(t:call({ path = "/v1/models", method = "GET", body = "" }).status, 200)
end)

test("errors of the target are told in the client's dialect", function(t)
  use(t, { status = 429, headers = { ["retry-after"] = "7" },
           body = { type = "error", error = { type = "rate_limit_error", message = "slow down" } } })
  local r = t:call { body = body() }
  t:eq(r.status, 429)
  t:eq(r.headers["retry-after"], "7")
  t:match(r.json.error.message, "slow down")
  t:eq(r.json.error.type, "rate_limit_error")
end)

test("long texts pass as they are: a script never holds them", function(t)
  t:dialect("anthropic")
  t:provider { HELLO }
  local image = ("QUJD"):rep(50000)
  local long = ("\\u00fc\\\"\\/ü"):rep(1000)
  local parts = {}
  for i = 1, 12 do
    parts[i] = '{"type":"image_url","image_url":{"url":"data:image\\/png;base64,' .. image .. '"}}'
  end
  local arguments = '{\\"q\\":\\"' .. ("x"):rep(5000) .. '\\",\\"n\\":12345678901234567890}'
  local r = t:call { body = '{"model":"m","messages":[{"role":"system","content":"' .. long
    .. '"},{"role":"user","content":['
    .. table.concat(parts, ",")
      .. ']},{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f",'
    .. '"arguments":"' .. arguments .. '"}}]},{"role":"tool","tool_call_id":"a","content":"ok"}]}' }
  t:eq(#r.faults, 0)
  t:eq(r.status, 200)
  local sent = t:sent(1).body
  t:ok(sent:find('"text":"' .. long .. '"', 1, true))
  local _, count = sent:gsub('"data":"' .. image .. '","media_type":"image/png"', "")
  t:eq(count, 12)
  t:ok(sent:find('"input":{"q":"' .. ("x"):rep(5000) .. '","n":12345678901234567890}', 1, true))
end)

-- Streams ------------------------------------------------------------------------------------------------------------

local function event(kind, fields)
  local data = { type = kind }
  for name, value in pairs(fields or {}) do data[name] = value end
  return { event = kind, data = data }
end

local START = event("message_start", { message = { id = "msg_2", model = "claude-2", usage = { input_tokens = 7 } } })
local function delta(index, d) return event("content_block_delta", { index = index, delta = d }) end
local STOP = event("message_stop")
local TEXT_STREAM = {
  START, event("content_block_start", { index = 0, content_block = { type = "text", text = "" } }), event("ping"),
  delta(0, { type = "text_delta", text = "hel" }), delta(0, { type = "text_delta", text = "lo" }),
  event("content_block_stop", { index = 0 }),
  event("message_delta", { delta = { stop_reason = "end_turn" }, usage = { output_tokens = 9 } }), STOP,
}

-- The data of a stream, decoded; what is no JSON as it is.
local function chunks(t, text)
  local list = {}
  for data in text:gmatch("data: (.-)\n\n") do list[#list + 1] = json.decode(data) or data end
  t:ok(not text:find("event:", 1, true))
  return list
end

test("streams: text", function(t)
  use(t, { sse = TEXT_STREAM })
  local r = t:call { body = body { stream = true, stream_options = { include_usage = true } } }
  t:eq(t:sent(2).json.stream, true)
  t:eq(t:sent(2).json.stream_options, nil)
  t:eq(r.headers["parry-translated"], "anthropic")
  local list = chunks(t, r.body)
  t:eq(#list, 6)
  t:eq(list[1].choices[1].delta, { role = "assistant", content = "" })
  t:eq(list[1].id, "msg_2")
  t:eq(list[1].model, "claude-2")
  t:eq(list[1].object, "chat.completion.chunk")
  t:eq(list[2].choices[1].delta, { content = "hel" })
  t:eq(list[3].choices[1].delta, { content = "lo" })
  t:eq(list[4].choices[1].finish_reason, "stop")
  t:eq(list[5].choices, {})
  t:eq(list[5].usage.prompt_tokens, 7)
  t:eq(list[5].usage.completion_tokens, 9)
  t:eq(list[6], "[DONE]")
end)

test("streams: tool calls have their numbers, and arguments that are JSON", function(t)
  use(t, { sse = { START,
    event("content_block_start", { index = 0, content_block = { type = "thinking", thinking = "" } }),
    delta(0, { type = "thinking_delta", thinking = "hm" }), delta(0, { type = "signature_delta", signature = "s" }),
    event("content_block_stop", { index = 0 }),
    event("content_block_start", { index = 1, content_block = { type = "tool_use", id = "t1", name = "f",
      input = {} } }),
    delta(1, { type = "input_json_delta", partial_json = "" }), delta(1, { type = "input_json_delta",
      partial_json = '{"a"' }),
    delta(1, { type = "input_json_delta", partial_json = ":1}" }), event("content_block_stop", { index = 1 }),
    event("content_block_start", { index = 2, content_block = { type = "tool_use", id = "t2", name = "g",
      input = {} } }),
    event("content_block_stop", { index = 2 }),
    event("message_delta", { delta = { stop_reason = "tool_use" }, usage = { output_tokens = 9 } }), STOP } })
  local list = chunks(t, t:call({ body = body { stream = true, tools = { WEATHER } } }).body)
  local calls, thought = {}, ""
  for i = 1, #list - 1 do
    local d = list[i].choices[1].delta
    thought = thought .. (d.reasoning_content or "")
    for _, call in ipairs(d.tool_calls or {}) do
      local c = calls[call.index + 1] or { arguments = "" }
      calls[call.index + 1] = c
      c.id, c.name = c.id or call.id, c.name or call["function"].name
      c.arguments = c.arguments .. call["function"].arguments
    end
  end
  t:eq(thought, "hm")
  t:eq(calls, { { id = "t1", name = "f", arguments = '{"a":1}' }, { id = "t2", name = "g", arguments = "{}" } })
  t:eq(list[#list - 1].choices[1].finish_reason, "tool_calls")
  t:eq(list[#list], "[DONE]")
end)

test("streams: an error before the content recovers, one after it is told as OpenAI would", function(t)
  local overloaded = event("error", { error = { type = "overloaded_error", message = "Overloaded" } })
  t:dialect("anthropic")
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none", never = {} })
  t:provider { { sse = { START, overloaded } }, { sse = { START, delta(0, { type = "text_delta", text = "x" }),
    overloaded } } }
  local r = t:call { body = body { stream = true } }
  t:eq(r.upstream_calls, 2)
  t:eq(r.ok, false)
  t:eq(r.truncated, false)
  local list = chunks(t, r.body)
  t:eq(#list, 3)
  t:eq(list[3].error.message, "Overloaded")
end)

test("streams: one that is cut does not end as if it were whole", function(t)
  use(t, { sse = { START, delta(0, { type = "text_delta", text = "x" }) }, cut = true })
  local r = t:call { body = body { stream = true } }
  t:eq(r.ok, false)
  t:ok(not r.body:find("[DONE]", 1, true))
  t:ok(chunks(t, r.body)[3].error)
end)

test("streams: a stop reason is the end, even when message_stop is missing", function(t)
  use(t, { sse = { START, delta(0, { type = "text_delta", text = "x" }),
                   event("message_delta", { delta = { stop_reason = "max_tokens" } }) } })
  local r = t:call { body = body { stream = true } }
  t:eq(r.ok, true)
  local list = chunks(t, r.body)
  t:eq(list[3].choices[1].finish_reason, "length")
  t:eq(list[4], "[DONE]")
end)

-- Whatever a client or a provider sends: an answer or a refusal, never a fault.
test("nonsense is refused, and is nobody's fault", function(t)
  t:dialect("anthropic")
  local odd = { json.null, true, 0, -1.5, "x", "", {}, { {} }, { a = {} }, { { type = "text" } }, { { role = "user" } },
                { { role = "assistant", tool_calls = 1 } }, { { role = "user", content = { { type = "image_url",
                  image_url = 1 } } } },
                { { type = "function", ["function"] = 1 } }, { { role = "tool" } }, { { role = "assistant",
                  tool_calls = { 1 } } } }
  local steps = {}
  for i = 1, 400 do steps[i] = HELLO end
  t:provider(steps)
  for _, name in ipairs { "messages", "tools", "tool_choice", "stop", "n", "user", "stream_options", "temperature",
    "top_p",
                          "max_tokens", "response_format", "modalities", "logit_bias", "parallel_tool_calls",
                            "logprobs" } do
    for i, value in ipairs(odd) do
      local r = t:call { body = body { [name] = value } }
      t:eq(#r.faults, 0, name .. " " .. i)
      t:ok(r.status == 200 or r.status == 400)
    end
  end
end)

test("nonsense in an answer is a failure, and nobody's fault", function(t)
  t:dialect("anthropic")
  local bodies = { "[]", "1", "{}", '{"content":1}', '{"content":[1]}', '{"content":[{"type":"hologram"}]}' }
  local steps = {}
  for i, text in ipairs(bodies) do steps[i] = { status = 200, body = text } end
  t:provider(steps)
  for _, text in ipairs(bodies) do
    local r = t:call { body = body() }
    t:eq(r.ok, false, text)
    t:eq(r.json.error.code, "untranslatable")
    t:eq(#r.faults, 0, text)
  end
  local streams = {}
  for i, data in ipairs { "1", "x", {}, { 1 }, { type = "message_start", message = 1 },
    { type = "content_block_start" },
                          { type = "content_block_delta", delta = 1 }, { type = "content_block_delta",
                            delta = { type = "input_json_delta" } },
                          { type = "message_delta", delta = 1, usage = 1 }, { type = "content_block_stop",
                            index = {} } } do
    streams[i] = { sse = { data, event("content_block_delta", { index = 0, delta = { type = "text_delta",
      text = "x" } }), STOP } }
  end
  t:provider(streams)
  for i = 1, #streams do t:eq(#t:call({ body = body { stream = true } }).faults, 0, tostring(i)) end
end)

-- Found by fuzzing: the data said message_stop, the event line something else. The client got its [DONE], and behind it
-- the error for a stream that had not ended.
test("streams: an end that only the data claims is none", function(t)
  local garbled = { event = "conte", data = { type = "message_stop" } }
  use(t, { sse = { START, delta(0, { type = "text_delta", text = "hi" }), garbled } })
  local r = t:call { body = body { stream = true } }
  t:eq(r.ok, false)
  t:ok(not r.body:find("[DONE]", 1, true))
  t:match(r.body, '"error"')
end)
