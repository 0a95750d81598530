--- Google's own: generateContent and streamGenerateContent, on Gemini's addresses and Vertex's.
--
-- Errors are {"error": {"code", "message", "status", "details"}}, in an array where a stream was asked for without
-- alt=sse. details say why (ErrorInfo), which quota (QuotaFailure), and when to come back (RetryInfo): that counts when
-- no header says it. A quota of a day does not pass while a call waits. A prompt that was blocked is a 200 with
-- promptFeedback.blockReason and without candidates.

local answer_of = require "lib.answer"
local openai = require "lib.openai"

local FEEDBACK = { "BLOCK_REASON_UNSPECIFIED" }

-- google.rpc.Code; and the number beside it where the failure has no status of its own: what parry answers with then
local STATES = {
  auth = { "UNAUTHENTICATED", 401 },
  permission = { "PERMISSION_DENIED", 403 },
  billing = { "RESOURCE_EXHAUSTED", 402 },
  rate_limit = { "RESOURCE_EXHAUSTED", 429 },
  overloaded = { "UNAVAILABLE", 503 },
  server = { "INTERNAL", 502 },
  timeout = { "DEADLINE_EXCEEDED", 504 },
  network = { "UNAVAILABLE", 502 },
  invalid_request = { "INVALID_ARGUMENT", 400 },
  not_found = { "NOT_FOUND", 404 },
  context_length = { "INVALID_ARGUMENT", 400 },
  content_policy = { "INVALID_ARGUMENT", 400 },
  conflict = { "ABORTED", 409 },
  payload_too_large = { "INVALID_ARGUMENT", 413 },
  cancelled = { "CANCELLED", 499 },
  unknown = { "UNKNOWN", 503 },
}

local by_error = openai.classifier({
  invalid_request = "invalid_request", -- the Interactions API's codes
  failed_precondition = "permission",  -- the country, or no billing account
  cancelled = "network",
}, false)

local NO_KEY = { "unregistered callers" } -- said as PERMISSION_DENIED

local function block_reason(a)
  local body = a:json()
  local feedback = type(body) == "table" and body.promptFeedback
  return type(feedback) == "table" and type(feedback.blockReason) == "string" and feedback.blockReason or nil
end

local function message_of(err)
  if not err.retry_after then return err.message end
  return ("%s (try again in %d s)"):format(err.message, math.ceil(err.retry_after))
end

return dialect {
  name = "gemini",
  doc = "Google's generateContent and streamGenerateContent",

  health = { models = "/models", without = "/models" },
  error_in_200 = { error = openai.FINE, ["promptFeedback.blockReason"] = FEEDBACK },
  usage = {
    at = { "usageMetadata" }, -- in every event of a stream: running totals
    input = { "promptTokenCount + toolUsePromptTokenCount" },
    output = { "candidatesTokenCount + thoughtsTokenCount" }, -- thoughts are paid for as output
    cached = { "cachedContentTokenCount" },
    total = { "totalTokenCount" },
  },
  stream = {
    error_in_data = { error = openai.FINE, ["promptFeedback.blockReason"] = FEEDBACK },
    content_paths = { "candidates.*.content.parts" },
    finish_paths = { "candidates.*.finishReason" },
    default = "lifecycle", -- usage, ids, safety ratings
  },

  classify = function(a)
    local said = answer_of.read(a)
    local reason = not (said.code or said.message) and a.status < 400 and block_reason(a)
    if reason then
      return { category = "content_policy", code = reason, message = "the prompt was blocked: " .. reason }
    end
    local failure = by_error(a, said)
    if failure and said.state then failure.code = said.state end -- the number is the status once more
    if failure and failure.category == "permission" and said.message and a:mentions(said.message, NO_KEY) then
      failure.category = "auth"
    end
    return failure
  end,

  render = function(err, form)
    local state = STATES[err.category] or STATES.unknown
    local body = {
      error = { code = err.status >= 400 and err.status or state[2], message = message_of(err), status = state[1] },
    }
    return form == "event" and "data: " .. json.encode(body) .. "\n\n" or body
  end,
}
