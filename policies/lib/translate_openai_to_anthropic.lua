--- Clients of OpenAI's chat completions, answered by Anthropic's Messages API.

local translate = require "lib.translate"

local says, is_object, is_list, name_of = translate.says, translate.is_object, translate.is_list, translate.name

local PATH = "/v1/chat/completions"
local MAX_TOKENS = 4096 -- Anthropic must be told one; every model of theirs takes this

-- true: read below. false: left out, see README.md.
local FIELDS = {
  model = true, messages = true, tools = true, tool_choice = true, parallel_tool_calls = true, max_tokens = true,
  max_completion_tokens = true, temperature = true, top_p = true, top_k = true, stop = true, stream = true,
  stream_options = true, user = true, safety_identifier = true, n = true, logprobs = true, top_logprobs = true,
  logit_bias = true, response_format = true, modalities = true,
  presence_penalty = false, frequency_penalty = false, seed = false, prediction = false, reasoning_effort = false,
  verbosity = false, service_tier = false, store = false, metadata = false, prompt_cache_key = false,
  prompt_cache_retention = false,
}

-- Messages -----------------------------------------------------------------------------------------------------------

local function image_block(part, refuse)
  local url = is_object(part.image_url) and part.image_url.url or part.image_url
  if not says(url) then return refuse "an image without a URL" end
  local media, data = translate.data_url(url)
  if media then
    return { type = "image", source = { type = "base64", media_type = media, data = data } }
  end
  if type(url) == "string" and url:find("^https?://") then
    return { type = "image", source = { type = "url", url = url } }
  end
  refuse "an image whose URL is neither http, https nor base64 data"
end

local function file_block(part, refuse)
  local file = is_object(part.file) and part.file or {}
  if not says(file.file_data) then return refuse "a file by its id" end
  local media, data = translate.data_url(file.file_data)
  if media ~= "application/pdf" then return refuse "a file that is not a PDF" end
  return { type = "document", source = { type = "base64", media_type = media, data = data },
           title = type(file.filename) == "string" and file.filename ~= "" and file.filename or nil }
end

local function part_block(part, refuse)
  if not is_object(part) then return refuse "content that is no list of parts" end
  local kind = part.type
  if kind == "text" or kind == "refusal" then
    local text = part[kind]
    return says(text) and { type = "text", text = text } or nil
  end
  if kind == "image_url" then return image_block(part, refuse) end
  if kind == "file" then return file_block(part, refuse) end
  refuse("content of type " .. name_of(kind))
end

-- Anthropic takes no empty texts: they are left out.
local function add_content(blocks, content, refuse)
  if content == nil then return end
  if says(content) then
    blocks[#blocks + 1] = { type = "text", text = content }
  elseif is_list(content) then
    for _, part in ipairs(content) do
      local block = part_block(part, refuse)
      if block then blocks[#blocks + 1] = block end
    end
  elseif content ~= "" then
    refuse "content that is neither a text nor a list"
  end
end

local function add_tool_calls(blocks, calls, refuse)
  if calls == nil then return end
  if not is_list(calls) then return refuse "tool_calls that are no list" end
  for _, call in ipairs(calls) do
    local fn = is_object(call) and call["function"]
    local id = is_object(call) and translate.tool_id(call.id)
    if not is_object(fn) or not says(fn.name) or not id then
      return refuse "a tool call that is no function's, or has no id or name"
    end
    local input, kind = {}, "object"
    if says(fn.arguments) then input, kind = json.unquote(fn.arguments) end
    if kind ~= "object" then return refuse "tool call arguments that are no JSON object" end
    blocks[#blocks + 1] = { type = "tool_use", id = id, name = fn.name, input = input }
  end
end

local function tool_result(message, refuse)
  local id = translate.tool_id(message.tool_call_id)
  if not id then return refuse "a tool message without tool_call_id" end
  local blocks = {}
  add_content(blocks, message.content, refuse)
  return { type = "tool_result", tool_use_id = id, content = #blocks > 0 and blocks or nil }
end

-- Turns of one role in a row become one.
local function turn_of(turns, role)
  local last = turns[#turns]
  if last and last.role == role then return last.content end
  last = { role = role, content = {} }
  turns[#turns + 1] = last
  return last.content
end

local function without_empty(turns)
  local kept = {}
  for _, turn in ipairs(turns) do
    if #turn.content > 0 then kept[#kept + 1] = turn end
  end
  return kept
end

local function read_messages(messages, refuse)
  local turns, system = {}, {}
  if not is_list(messages) then
    refuse "messages that are no list"
    return turns, system
  end
  for _, message in ipairs(messages) do
    local role = is_object(message) and message.role
    if role == "system" or role == "developer" then
      add_content(system, message.content, refuse)
    elseif role == "user" then
      add_content(turn_of(turns, "user"), message.content, refuse)
    elseif role == "assistant" then
      local blocks = turn_of(turns, "assistant")
      add_content(blocks, message.content, refuse)
      if says(message.refusal) then blocks[#blocks + 1] = { type = "text", text = message.refusal } end
      add_tool_calls(blocks, message.tool_calls, refuse)
      if message.function_call ~= nil then refuse "function_call" end
      if message.audio ~= nil then refuse "audio" end
    elseif role == "tool" then
      local blocks = turn_of(turns, "user")
      blocks[#blocks + 1] = tool_result(message, refuse)
    else
      refuse("a message of role " .. name_of(role))
    end
  end
  return without_empty(turns), system
end

-- Tools --------------------------------------------------------------------------------------------------------------

local function read_tools(tools, refuse)
  if not is_list(tools) then return refuse "tools that are no list" end
  local list = {}
  for _, tool in ipairs(tools) do
    local fn = is_object(tool) and tool.type == "function" and tool["function"]
    if not is_object(fn) or not says(fn.name) then
      refuse("tools of type " .. name_of(is_object(tool) and tool.type))
    else
      local schema = fn.parameters
      if schema == nil or json.kind(schema) ~= "object" or json.quote(schema) == "{}" then
        schema = { type = "object", properties = {} }
      end
      list[#list + 1] = { name = fn.name, description = fn.description, input_schema = schema }
    end
  end
  return #list > 0 and list or nil
end

local function read_tool_choice(body, refuse)
  local choice, said = nil, body.tool_choice
  if said == "auto" or said == "none" then
    choice = { type = said }
  elseif said == "required" then
    choice = { type = "any" }
  elseif is_object(said) and said.type == "function" and is_object(said["function"]) then
    choice = { type = "tool", name = said["function"].name }
  elseif said ~= nil then
    refuse("tool_choice of type " .. name_of(is_object(said) and said.type or said))
  end
  if body.parallel_tool_calls == false and said ~= "none" then
    choice = choice or { type = "auto" }
    choice.disable_parallel_tool_use = true
  end
  return choice
end

-- The rest -----------------------------------------------------------------------------------------------------------

local function read_stop(stop, refuse)
  if stop == nil then return end
  local list = is_list(stop) and stop or { stop }
  for _, text in ipairs(list) do
    if not says(text) then return refuse "stop" end
    if type(text) == "string" and not text:find("%S") then return refuse "a stop sequence of white space only" end
  end
  return #list > 0 and list or nil
end

local function is_on(value) return value ~= nil and value ~= false and value ~= 0 end

local function check(body, refuse)
  translate.check_fields(body, FIELDS, refuse)
  if body.n ~= nil and body.n ~= 1 then refuse "n above 1" end
  if is_on(body.logprobs) or is_on(body.top_logprobs) then refuse "logprobs" end
  if body.logit_bias ~= nil and not (type(body.logit_bias) == "table" and #body.logit_bias == 0
                                     and json.encode(body.logit_bias):find("^[%[{][%]}]$")) then
    refuse "logit_bias"
  end
  local format = body.response_format
  if format ~= nil and not (is_object(format) and format.type == "text") then
    refuse("response_format " .. name_of(is_object(format) and format.type))
  end
  for _, modality in ipairs(is_list(body.modalities) and body.modalities or {}) do
    if modality ~= "text" then refuse("modality " .. name_of(modality)) end
  end
end

local function temperature_of(body)
  local value = body.temperature
  return type(value) == "number" and value > 1 and 1 or value
end

local function user_of(body)
  local user = says(body.user) and body.user or body.safety_identifier
  return says(user) and { user_id = user } or nil
end

local function request(body, ask)
  local refused, refuse = translate.refusals()
  if ask.path ~= PATH then return nil, { "the path " .. name_of(ask.path) .. " (only " .. PATH .. " is)" } end
  check(body, refuse)
  local turns, system = read_messages(body.messages, refuse)
  local tools = body.tools ~= nil and read_tools(body.tools, refuse) or nil
  local choice = read_tool_choice(body, refuse)
  local stop = read_stop(body.stop, refuse)
  if #refused > 0 then return nil, refused end
  local options = is_object(body.stream_options) and body.stream_options or {}
  return {
    path = "/v1/messages",
    headers = { ["anthropic-version"] = "2023-06-01", ["content-type"] = "application/json",
                ["openai-beta"] = false, ["openai-organization"] = false, ["openai-project"] = false },
    remember = { time = ask.time, usage = options.include_usage == true or nil },
    body = {
      model = ask.model ~= "" and ask.model or nil,
      messages = json.array(turns),
      system = #system > 0 and system or nil,
      tools = tools,
      tool_choice = tools and choice or nil,
      max_tokens = body.max_completion_tokens or body.max_tokens or MAX_TOKENS,
      temperature = temperature_of(body),
      top_p = body.temperature == nil and body.top_p or nil, -- newer models refuse both
      top_k = body.top_k,
      stop_sequences = stop,
      stream = body.stream,
      metadata = user_of(body),
    },
  }
end

-- Answers ------------------------------------------------------------------------------------------------------------

local FINISH = {
  end_turn = "stop", stop_sequence = "stop", pause_turn = "stop", max_tokens = "length",
  model_context_window_exceeded = "length", tool_use = "tool_calls", refusal = "content_filter",
}

local function count(value) return math.type(value) == "integer" and value or 0 end

local function usage_of(usage)
  if not is_object(usage) then usage = {} end
  local cached = count(usage.cache_read_input_tokens)
  local prompt = count(usage.input_tokens) + cached + count(usage.cache_creation_input_tokens)
  local completion = count(usage.output_tokens)
  return {
    prompt_tokens = prompt, completion_tokens = completion, total_tokens = prompt + completion,
    prompt_tokens_details = { cached_tokens = cached },
  }
end

local function answer(body, memory)
  if not is_object(body) or not is_list(body.content) then return nil, "an answer without content" end
  local texts, thoughts, calls = {}, {}, {}
  for _, block in ipairs(body.content) do
    local kind = is_object(block) and block.type
    if kind == "text" then
      if says(block.text) then texts[#texts + 1] = block.text end
    elseif kind == "tool_use" then
      calls[#calls + 1] = { id = block.id, type = "function",
                            ["function"] = { name = block.name, arguments = json.quote(block.input or {}) } }
    elseif kind == "thinking" then
      if says(block.thinking) then thoughts[#thoughts + 1] = block.thinking end
    elseif kind ~= "redacted_thinking" then
      return nil, "content of type " .. name_of(kind)
    end
  end
  return {
    id = body.id, object = "chat.completion", created = memory.time or 0, model = body.model,
    choices = { {
      index = 0, logprobs = json.null, finish_reason = FINISH[body.stop_reason] or "stop",
      message = {
        role = "assistant", content = translate.join(texts) or json.null, refusal = json.null,
        reasoning_content = translate.join(thoughts, "\n"), tool_calls = #calls > 0 and calls or nil,
      },
    } },
    usage = usage_of(body.usage),
  }
end

-- Streams ------------------------------------------------------------------------------------------------------------
--
-- memory: id, model, time, usage (wanted), counts, tools (how many), said (which blocks had arguments), places (a
-- tool's number by its block's), finish, ended

local function chunk(memory, emit, delta, finish)
  emit {
    id = memory.id or "msg", object = "chat.completion.chunk", created = memory.time or 0, model = memory.model or "",
    choices = { { index = 0, delta = delta, logprobs = json.null, finish_reason = finish or json.null } },
    usage = memory.usage and json.null or nil,
  }
end

local function add_counts(memory, usage)
  if not is_object(usage) then return end
  memory.counts = memory.counts or {}
  for _, name in ipairs { "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens" } do
    if math.type(usage[name]) == "integer" then memory.counts[name] = usage[name] end
  end
end

local function tool_delta(memory, emit, place, arguments)
  if json.kind(arguments) ~= "string" or arguments == "" then return end
  memory.said[place] = true
  chunk(memory, emit, { tool_calls = { { index = memory.places[place], ["function"] = { arguments = arguments } } } })
end

local function begin_block(memory, emit, data)
  local block = is_object(data.content_block) and data.content_block or {}
  if block.type == "text" then
    if says(block.text) then chunk(memory, emit, { content = block.text }) end
  elseif block.type == "tool_use" then
    local place = tostring(data.index)
    memory.places, memory.said = memory.places or {}, memory.said or {}
    memory.places[place] = memory.tools or 0
    memory.tools = (memory.tools or 0) + 1
    chunk(memory, emit, { tool_calls = { {
      index = memory.places[place], id = block.id, type = "function",
      ["function"] = { name = block.name, arguments = "" },
    } } })
  elseif block.type ~= "thinking" and block.type ~= "redacted_thinking" then
    return "content of type " .. name_of(block.type)
  end
end

local function delta_of_block(memory, emit, data)
  local delta = is_object(data.delta) and data.delta or {}
  if delta.type == "text_delta" then
    chunk(memory, emit, { content = delta.text })
  elseif delta.type == "thinking_delta" then
    chunk(memory, emit, { reasoning_content = delta.thinking })
  elseif delta.type == "input_json_delta" then
    local place = tostring(data.index)
    if not (memory.places and memory.places[place]) then return "arguments without a tool" end
    tool_delta(memory, emit, place, delta.partial_json)
  end -- signatures and citations have no place in a chunk
end

-- A tool without arguments sends none; clients of OpenAI read them as JSON.
local function end_block(memory, emit, data)
  local place = tostring(data.index)
  if memory.places and memory.places[place] and not memory.said[place] then tool_delta(memory, emit, place, "{}") end
end

local function finish(memory, emit)
  if memory.ended then return end
  memory.ended = true
  if not memory.finish then chunk(memory, emit, {}, "stop") end
  if memory.usage then
    emit {
      id = memory.id or "msg", object = "chat.completion.chunk", created = memory.time or 0, model = memory.model or "",
      choices = json.array {}, usage = usage_of(memory.counts),
    }
  end
  emit "[DONE]"
end

-- An event is what its `event:` line says, as for the core; only without one, what its data says.
local function event(memory, emit, data, name)
  if not is_object(data) then return end
  local kind = name ~= "" and name or data.type
  if kind == "message_start" then
    local message = is_object(data.message) and data.message or {}
    memory.id, memory.model = name_of(message.id), name_of(message.model)
    add_counts(memory, message.usage)
    chunk(memory, emit, { role = "assistant", content = "" })
  elseif kind == "content_block_start" then
    return begin_block(memory, emit, data)
  elseif kind == "content_block_delta" then
    return delta_of_block(memory, emit, data)
  elseif kind == "content_block_stop" then
    end_block(memory, emit, data)
  elseif kind == "message_delta" then
    add_counts(memory, data.usage)
    local reason = is_object(data.delta) and data.delta.stop_reason
    if reason and not memory.finish then
      memory.finish = FINISH[reason] or "stop"
      chunk(memory, emit, {}, memory.finish)
    end
  elseif kind == "message_stop" then
    finish(memory, emit)
  end -- pings, and what is new to us
end

return {
  opaque = { "parameters", "input", "input_schema", "schema" },
  request = request,
  answer = answer,
  event = event,
  finish = finish,
}
