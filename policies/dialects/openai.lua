--- OpenAI, and everybody who speaks like it: Moonshot, Token360, DeepSeek, vLLM, Ollama, Azure, OpenRouter, ...

local errors = require "lib.errors"
local openai = require "lib.openai"
local from_anthropic = require "lib.translate_anthropic_to_openai"
local strip = require "lib.strip"

local TYPES = errors.TYPES.openai

-- Codes that clients branch on; otherwise the provider's own, else the category.
local CODES = {
  context_length = "context_length_exceeded",
  content_policy = "content_filter",
  billing = "insufficient_quota",
}

local function message_of(err)
  if not err.retry_after then return err.message end
  return ("%s (try again in %d s)"):format(err.message, math.ceil(err.retry_after))
end

return dialect {
  name = "openai",
  doc = "OpenAI's chat completions, completions and Responses API, and compatible providers",

  error_in_200 = { error = openai.FINE },
  usage = openai.USAGE,
  stream = openai.stream(),
  health = { models = "/models", completion = "/chat/completions" },

  classify = openai.classifier(),

  translate = { anthropic = from_anthropic },
  strip = {
    words = { "previous_response_id", "conversation", "item_reference", "reasoning", "reasoning_details",
              "extra_content" },
    opaque = { "arguments", "parameters", "schema" },
    run = strip.openai,
  },

  render = function(err, form, api)
    local body = {
      error = {
        message = message_of(err),
        type = TYPES[err.category],
        param = json.null,
        code = CODES[err.category] or err.code or err.category,
      },
    }
    if form ~= "event" then return body end
    if api ~= "responses" then return "data: " .. json.encode(body) .. "\n\n" end
    -- Readers of the Responses API go by the type; the SDKs throw for `error`.
    body.type, body.sequence_number = "error", 0
    body.code, body.message, body.param = body.error.code, body.error.message, json.null
    return "event: error\ndata: " .. json.encode(body) .. "\n\n"
  end,
}
