--- Anthropic's Messages API, and everybody who speaks like it.

local errors = require "lib.errors"
local from_openai = require "lib.translate_openai_to_anthropic"
local openai = require "lib.openai"
local strip = require "lib.strip"

-- On top of what everybody says. invalid_request_error is also sent for a prompt that is too long and for an empty
-- balance: there the message says it.
local classify = openai.classifier {
  billing_error = "billing",
  overloaded_error = "overloaded", -- 529
  -- the same models behind AWS
  throttlingexception = "rate_limit",
  servicequotaexceededexception = { category = "rate_limit", retryable = false },
  serviceunavailableexception = "overloaded",
  modelnotreadyexception = "overloaded",
  modelerrorexception = "server",
  modeltimeoutexception = "timeout",
  accessdeniedexception = "permission",
  resourcenotfoundexception = "not_found",
  expiredtokenexception = "auth",
  unrecognizedclientexception = "auth",
}

local TYPES = errors.TYPES.anthropic

local function message_of(err)
  if not err.retry_after then return err.message end
  return ("%s (try again in %d s)"):format(err.message, math.ceil(err.retry_after))
end

return dialect {
  name = "anthropic",
  doc = "Anthropic's Messages API",

  error_in_200 = { error = { false, "" } },
  usage = {
    at = { "usage", "message.usage" }, -- message_start has it in its message
    -- what went into the cache and what came out of it is not part of input_tokens
    input = { "input_tokens + cache_creation_input_tokens + cache_read_input_tokens" },
    output = { "output_tokens" },
    cached = { "cache_read_input_tokens" },
  },
  health = {
    models = "/models", completion = "/messages", without = "/messages",
    headers = { "anthropic-version: 2023-06-01" },
  },
  stream = {
    type_field = "type",
    error_types = { "error" },
    error_in_data = { error = { false, "" } },
    end_types = { "message_stop" },
    lifecycle_types = { "message_start", "ping", "content_block_start", "content_block_stop", "message_delta" },
    content_types = { "content_block_delta" },
    finish_paths = { "delta.stop_reason" },
    json = true,
    default = "content", -- an event that is new to us may be what the client waits for
  },

  classify = classify,

  translate = { openai = from_openai },
  strip = { words = { "thinking", "redacted_thinking" }, opaque = { "input", "input_schema" }, run = strip.messages },

  render = function(err, form)
    local body = {
      type = "error",
      error = { type = TYPES[err.category], message = message_of(err) },
      request_id = err.call_id or json.null,
    }
    return form == "event" and "event: error\ndata: " .. json.encode(body) .. "\n\n" or body
  end,
}
