--- Clients of Anthropic's Messages API, answered by OpenAI's chat completions and their relatives.

local translate = require "lib.translate"

local says, is_object, is_list, name_of = translate.says, translate.is_object, translate.is_list, translate.name

local PATH = "/v1/messages"

-- true: read below. false: left out, see README.md.
local FIELDS = {
  model = true, messages = true, system = true, tools = true, tool_choice = true, max_tokens = true, temperature = true,
  top_p = true, stop_sequences = true, stream = true, metadata = true, thinking = true, mcp_servers = true,
  top_k = false, service_tier = false, cache_control = false, context_management = false, inference_geo = false,
}

-- Content ------------------------------------------------------------------------------------------------------------

local function image_part(block, refuse)
  local source = is_object(block.source) and block.source or {}
  if source.type == "base64" and says(source.media_type) and says(source.data) then
    return { type = "image_url", image_url = { url = "data:" .. source.media_type .. ";base64," .. source.data } }
  end
  if source.type == "url" and says(source.url) then return { type = "image_url", image_url = { url = source.url } } end
  refuse("an image whose source is of type " .. name_of(source.type))
end

local function document_part(block, refuse)
  local source = is_object(block.source) and block.source or {}
  if is_object(block.citations) and block.citations.enabled then return refuse "citations" end
  if source.type == "text" and says(source.data) then return { type = "text", text = source.data } end
  if source.type == "base64" and source.media_type == "application/pdf" and says(source.data) then
    return { type = "file", file = { filename = says(block.title) and block.title or "document.pdf",
                                     file_data = "data:application/pdf;base64," .. source.data } }
  end
  refuse("a document whose source is of type " .. name_of(source.type))
end

-- The texts of a system prompt or a tool's result, as one.
local function text_of(content, what, refuse)
  if content == nil or says(content) or content == "" then return content or "" end
  if not is_list(content) then return refuse(what .. " that is neither a text nor a list") end
  local texts = {}
  for _, block in ipairs(content) do
    if not is_object(block) or block.type ~= "text" then
      return refuse(what .. " with content of type " .. name_of(is_object(block) and block.type))
    end
    if says(block.text) then texts[#texts + 1] = block.text end
  end
  return translate.join(texts, "\n") or ""
end

local function user_part(block, refuse)
  local kind = is_object(block) and block.type
  if kind == "text" then return says(block.text) and { type = "text", text = block.text } or nil end
  if kind == "image" then return image_part(block, refuse) end
  if kind == "document" then return document_part(block, refuse) end
  refuse("content of type " .. name_of(kind))
end

-- One text alone is sent as such: relatives of OpenAI do not all take lists.
local function plain(parts)
  return #parts == 1 and parts[1].type == "text" and parts[1].text or parts
end

-- Results come first: OpenAI wants them right behind the calls.
local function add_user(messages, content, refuse)
  if says(content) then
    messages[#messages + 1] = { role = "user", content = content }
    return
  end
  if not is_list(content) then return refuse "content that is neither a text nor a list" end
  local parts = {}
  for _, block in ipairs(content) do
    if is_object(block) and block.type == "tool_result" then
      if not says(block.tool_use_id) then return refuse "a tool_result without tool_use_id" end
      messages[#messages + 1] = { role = "tool", tool_call_id = block.tool_use_id,
                                  content = text_of(block.content, "a tool_result", refuse) }
    else
      parts[#parts + 1] = user_part(block, refuse)
    end
  end
  if #parts > 0 then messages[#messages + 1] = { role = "user", content = plain(parts) } end
end

-- Thoughts are bound to the model that had them, and stay behind.
local function add_assistant(messages, content, refuse)
  if says(content) then content = { { type = "text", text = content } } end
  if content == "" then return end
  if not is_list(content) then return refuse "content that is neither a text nor a list" end
  local texts, calls = {}, {}
  for _, block in ipairs(content) do
    local kind = is_object(block) and block.type
    if kind == "text" then
      if says(block.text) then texts[#texts + 1] = block.text end
    elseif kind == "tool_use" and says(block.id) and says(block.name) then
      calls[#calls + 1] = { id = block.id, type = "function",
                            ["function"] = { name = block.name, arguments = json.quote(block.input or {}) } }
    elseif kind ~= "thinking" and kind ~= "redacted_thinking" then
      return refuse("content of type " .. name_of(kind))
    end
  end
  if #texts == 0 and #calls == 0 then return end
  messages[#messages + 1] = { role = "assistant", content = translate.join(texts) or json.null,
                              tool_calls = #calls > 0 and calls or nil }
end

local function read_messages(body, refuse)
  local messages = {}
  local system = text_of(body.system, "system", refuse)
  if says(system) then messages[1] = { role = "system", content = system } end
  if not is_list(body.messages) then
    refuse "messages that are no list"
    return messages
  end
  local last
  for _, message in ipairs(body.messages) do
    last = is_object(message) and message.role
    if last == "user" then
      add_user(messages, message.content, refuse)
    elseif last == "assistant" then
      add_assistant(messages, message.content, refuse)
    else
      refuse("a message of role " .. name_of(last))
    end
  end
  if last == "assistant" then refuse "a last message of the assistant, to be continued" end
  return messages
end

-- Tools --------------------------------------------------------------------------------------------------------------

local function read_tools(tools, refuse)
  if not is_list(tools) then return refuse "tools that are no list" end
  local list = {}
  for _, tool in ipairs(tools) do
    if is_object(tool) and (tool.type == nil or tool.type == "custom") and says(tool.name) then
      list[#list + 1] = { type = "function", ["function"] = {
        name = tool.name, description = tool.description, parameters = tool.input_schema,
      } }
    else
      refuse("tools of type " .. name_of(is_object(tool) and tool.type))
    end
  end
  return #list > 0 and list or nil
end

local function read_tool_choice(choice, refuse)
  if choice == nil then return end
  local kind = is_object(choice) and choice.type
  if kind == "auto" or kind == "none" then return kind end
  if kind == "any" then return "required" end
  if kind == "tool" then return { type = "function", ["function"] = { name = choice.name } } end
  refuse("tool_choice of type " .. name_of(kind))
end

-- The rest -----------------------------------------------------------------------------------------------------------

-- Models that think first have another name for the limit, and take neither temperature nor top_p.
local function thinks_first(model)
  local name = model:match("([^/]*)$")
  return name:find("^o%d") or name:find("^gpt%-5")
end

local function effort_of(thinking)
  if not is_object(thinking) or thinking.type ~= "enabled" then return end
  local budget = math.type(thinking.budget_tokens) == "integer" and thinking.budget_tokens or 8192
  return budget < 4096 and "low" or budget < 16384 and "medium" or "high"
end

local function request(body, ask)
  local refused, refuse = translate.refusals()
  if ask.path ~= PATH then return nil, { "the path " .. name_of(ask.path) .. " (only " .. PATH .. " is)" } end
  translate.check_fields(body, FIELDS, refuse)
  if is_list(body.mcp_servers) and #body.mcp_servers > 0 then refuse "mcp_servers" end
  local messages = read_messages(body, refuse)
  local tools = body.tools ~= nil and read_tools(body.tools, refuse) or nil
  local choice = read_tool_choice(body.tool_choice, refuse)
  local stop = body.stop_sequences
  if stop ~= nil and not is_list(stop) then refuse "stop_sequences" end
  if is_list(stop) and #stop > 4 then refuse "more than 4 stop_sequences" end
  if #refused > 0 then return nil, refused end
  local thinks = thinks_first(ask.model)
  local parallel
  if tools and is_object(body.tool_choice) and body.tool_choice.disable_parallel_tool_use then parallel = false end
  local streams = body.stream == true
  return {
    path = "/v1/chat/completions",
    headers = { ["content-type"] = "application/json", ["anthropic-version"] = false, ["anthropic-beta"] = false,
                ["anthropic-dangerous-direct-browser-access"] = false },
    remember = { time = ask.time },
    body = {
      model = ask.model ~= "" and ask.model or nil,
      messages = json.array(messages),
      tools = tools,
      tool_choice = tools and choice or nil,
      parallel_tool_calls = parallel,
      max_tokens = not thinks and body.max_tokens or nil,
      max_completion_tokens = thinks and body.max_tokens or nil,
      temperature = not thinks and body.temperature or nil,
      top_p = not thinks and body.top_p or nil,
      reasoning_effort = thinks and effort_of(body.thinking) or nil,
      stop = is_list(stop) and #stop > 0 and stop or nil,
      stream = body.stream,
      stream_options = streams and { include_usage = true } or nil,
      user = is_object(body.metadata) and says(body.metadata.user_id) and body.metadata.user_id or nil,
    },
  }
end

-- Answers ------------------------------------------------------------------------------------------------------------

local STOP = {
  stop = "end_turn", length = "max_tokens", tool_calls = "tool_use", function_call = "tool_use",
  content_filter = "refusal",
}

local function stop_of(reason, has_tools)
  if has_tools and reason == "stop" then return "tool_use" end
  return STOP[reason] or "end_turn"
end

local function count(value) return math.type(value) == "integer" and value or 0 end

local function usage_of(usage)
  if not is_object(usage) then usage = {} end
  local details = is_object(usage.prompt_tokens_details) and usage.prompt_tokens_details or {}
  local cached = math.min(count(details.cached_tokens), count(usage.prompt_tokens))
  return {
    input_tokens = count(usage.prompt_tokens) - cached, output_tokens = count(usage.completion_tokens),
    cache_read_input_tokens = cached, cache_creation_input_tokens = 0,
  }
end

-- Some relatives answer with a list of parts.
local function add_answer_text(blocks, content)
  if says(content) then
    blocks[#blocks + 1] = { type = "text", text = content }
  elseif is_list(content) then
    for _, part in ipairs(content) do
      if is_object(part) and says(part.text) then blocks[#blocks + 1] = { type = "text", text = part.text } end
    end
  end
end

local function add_answer_calls(blocks, calls)
  for i, call in ipairs(is_list(calls) and calls or {}) do
    local fn = is_object(call) and call["function"]
    if not is_object(fn) or not says(fn.name) then return "a tool call that is no function's" end
    local input, kind = {}, "object"
    if says(fn.arguments) then input, kind = json.unquote(fn.arguments) end
    if kind ~= "object" then return "tool call arguments that are no JSON object" end
    blocks[#blocks + 1] = { type = "tool_use", id = says(call.id) and call.id or "call_" .. i, name = fn.name,
                            input = input }
  end
end

local function answer(body)
  local choice = is_object(body) and is_list(body.choices) and body.choices[1]
  local message = is_object(choice) and choice.message
  if not is_object(message) then return nil, "an answer without choices" end
  if message.audio ~= nil then return nil, "audio" end
  local blocks = {}
  add_answer_text(blocks, message.content)
  add_answer_text(blocks, message.refusal)
  local texts = #blocks
  local wrong = add_answer_calls(blocks, message.tool_calls)
  if message.function_call ~= nil then wrong = "function_call" end
  if wrong then return nil, wrong end
  return {
    id = body.id, type = "message", role = "assistant", model = body.model,
    content = json.array(blocks),
    stop_reason = says(message.refusal) and "refusal" or stop_of(choice.finish_reason, #blocks > texts),
    stop_sequence = json.null,
    usage = usage_of(body.usage),
  }
end

-- Streams ------------------------------------------------------------------------------------------------------------
--
-- memory: started, block (number of the open one), kind (of it: "text", or the tool's number as a text), blocks
-- (begun), tools (those begun, by number), stop, counts, ended

local function send(emit, kind, fields)
  fields.type = kind
  emit(kind, fields)
end

local function start(memory, emit, data)
  if memory.started then return end
  memory.started = true
  send(emit, "message_start", { message = {
    id = name_of(data.id), type = "message", role = "assistant", model = name_of(data.model), content = json.array {},
    stop_reason = json.null, stop_sequence = json.null,
    usage = { input_tokens = 0, output_tokens = 0, cache_read_input_tokens = 0, cache_creation_input_tokens = 0 },
  } })
end

local function close_block(memory, emit)
  if not memory.block then return end
  send(emit, "content_block_stop", { index = memory.block })
  memory.block, memory.kind = nil, nil
end

local function open_block(memory, emit, kind, block)
  close_block(memory, emit)
  memory.block, memory.kind = memory.blocks or 0, kind
  memory.blocks = memory.block + 1
  send(emit, "content_block_start", { index = memory.block, content_block = block })
end

local function text_delta(memory, emit, text)
  if not says(text) then return end
  if memory.kind ~= "text" then open_block(memory, emit, "text", { type = "text", text = "" }) end
  send(emit, "content_block_delta", { index = memory.block, delta = { type = "text_delta", text = text } })
end

local function tool_delta(memory, emit, call, position)
  if not is_object(call) then return "a tool call that is no function's" end
  local number = tostring(math.type(call.index) == "integer" and call.index or position - 1)
  local fn = is_object(call["function"]) and call["function"] or {}
  memory.tools = memory.tools or {}
  if not memory.tools[number] then
    if not says(fn.name) then return "a tool call without a name" end
    memory.tools[number] = true
    open_block(memory, emit, number, { type = "tool_use", id = says(call.id) and call.id or "call_" .. number,
                                       name = fn.name, input = {} })
  elseif memory.kind ~= number then
    return "tool calls whose arguments come in turns"
  end
  if says(fn.arguments) then
    send(emit, "content_block_delta", { index = memory.block,
                                        delta = { type = "input_json_delta", partial_json = fn.arguments } })
  end
end

local function finish(memory, emit)
  if memory.ended then return end
  memory.ended = true
  start(memory, emit, {})
  close_block(memory, emit)
  send(emit, "message_delta", {
    delta = { stop_reason = memory.stop or "end_turn", stop_sequence = json.null }, usage = usage_of(memory.counts),
  })
  send(emit, "message_stop", {})
end

local function keep_counts(memory, usage)
  if not is_object(usage) then return end
  local details = is_object(usage.prompt_tokens_details) and usage.prompt_tokens_details or {}
  memory.counts = {
    prompt_tokens = count(usage.prompt_tokens), completion_tokens = count(usage.completion_tokens),
    prompt_tokens_details = { cached_tokens = count(details.cached_tokens) },
  }
end

local function event(memory, emit, data)
  if data == "[DONE]" then return finish(memory, emit) end
  if not is_object(data) or memory.ended then return end
  start(memory, emit, data)
  keep_counts(memory, data.usage)
  local choice = is_list(data.choices) and data.choices[1]
  if not is_object(choice) then return end
  keep_counts(memory, choice.usage)
  local delta = is_object(choice.delta) and choice.delta or {}
  if delta.function_call ~= nil then return "function_call" end
  if delta.audio ~= nil then return "audio" end
  text_delta(memory, emit, delta.content)
  text_delta(memory, emit, delta.refusal)
  for i, call in ipairs(is_list(delta.tool_calls) and delta.tool_calls or {}) do
    local wrong = tool_delta(memory, emit, call, i)
    if wrong then return wrong end
  end
  if type(choice.finish_reason) == "string" and not memory.stop then
    memory.stop = says(delta.refusal) and "refusal" or stop_of(choice.finish_reason, memory.tools ~= nil)
  end
end

return {
  opaque = { "input", "input_schema", "parameters" },
  request = request,
  answer = answer,
  event = event,
  finish = finish,
}
