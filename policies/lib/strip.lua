--- Takes out of a body what only the provider that made it understands: sealed thoughts, and names of things that it
--- keeps. For `strip` of dialects; a member that is null is json.null here.

local translate = require "lib.translate"

local is_object, is_list, says = translate.is_object, translate.is_list, translate.says

local strip = {}

local SEALED = { thinking = true, redacted_thinking = true }

-- The blocks of a turn that may stay; the same list when all may.
local function unsealed(blocks)
  local kept = {}
  for _, block in ipairs(blocks) do
    if not (is_object(block) and SEALED[block.type]) then kept[#kept + 1] = block end
  end
  return #kept < #blocks and kept or blocks
end

--- Anthropic's Messages: `thinking` blocks carry a signature that another endpoint refuses. A turn of nothing else goes
--- as a whole. When the last turn of the assistant lost its thoughts, the model is not asked to think: it would be
--- refused for the thoughts that are missing.
function strip.messages(body)
  if not is_object(body) or not is_list(body.messages) then return end
  local turns, changed, last_changed = {}, false, false
  for _, turn in ipairs(body.messages) do
    local assistant = is_object(turn) and turn.role == "assistant"
    local blocks = assistant and is_list(turn.content) and unsealed(turn.content)
    if blocks and blocks ~= turn.content then
      changed, last_changed = true, true
      turn.content = blocks
      if #blocks > 0 then turns[#turns + 1] = turn end
    else
      turns[#turns + 1] = turn
      if assistant then last_changed = false end
    end
  end
  if not changed then return end
  body.messages = json.array(turns)
  if last_changed then body.thinking = nil end
  return body
end

-- Chat completions: what relatives of OpenAI add to an assistant's message, and to its tool calls.
local BOUND = { "reasoning_details", "extra_content" }

local function unbind(object)
  local changed = false
  for _, name in ipairs(BOUND) do
    if object[name] ~= nil then
      object[name] = nil
      changed = true
    end
  end
  return changed
end

local function strip_chat(body)
  local changed = false
  for _, message in ipairs(body.messages) do
    if is_object(message) and message.role == "assistant" then
      if unbind(message) then changed = true end
      for _, call in ipairs(is_list(message.tool_calls) and message.tool_calls or {}) do
        if is_object(call) and unbind(call) then changed = true end
      end
    end
  end
  return changed and body or nil
end

-- The Responses API: sealed `reasoning` items go, and with them the ids by which other items name them. What stands for
-- items that the provider keeps cannot be taken out, or the model would not know what was said.
local function strip_responses(body)
  local kept, changed, bound = {}, false, {}
  for _, name in ipairs { "previous_response_id", "conversation" } do
    if body[name] ~= nil and body[name] ~= json.null then bound[#bound + 1] = name end
  end
  for _, item in ipairs(is_list(body.input) and body.input or {}) do
    local kind = is_object(item) and item.type
    if kind == "reasoning" then
      changed = true
    else
      if kind == "item_reference" then bound[#bound + 1] = "item_reference" end
      kept[#kept + 1] = item
    end
  end
  if #bound > 0 then return nil, bound end
  if not changed then return end
  for _, item in ipairs(kept) do
    if is_object(item) and says(item.id) then item.id = nil end
  end
  body.input = json.array(kept)
  return body
end

--- OpenAI's chat completions and Responses, and their relatives'.
function strip.openai(body)
  if not is_object(body) then return end
  if is_list(body.messages) then return strip_chat(body) end
  return strip_responses(body)
end

return strip
