--- What all dialects of OpenAI's family share: streams and error codes. dialects/openai.lua is the plain one; a dialect
--- for a relative starts from here and adds its own.

local answer = require "lib.answer"
local providers = require "lib.providers"

local openai = {}

-- A code or type that means something, whichever provider of the family sends it.
local CODES = {
  -- OpenAI
  insufficient_quota = "billing", -- comes with 429, and waiting never helps
  billing_hard_limit_reached = "billing",
  billing_not_active = "billing",
  rate_limit_exceeded = "rate_limit",
  rate_limit_error = "rate_limit",
  requests = "rate_limit", -- the type says which limit
  tokens = "rate_limit",
  slow_down = "overloaded",
  overloaded = "overloaded",
  engine_overloaded = "overloaded",
  overloaded_error = "overloaded",
  service_unavailable = "overloaded",
  service_unavailable_error = "overloaded",
  server_error = answer.VAGUE,
  api_error = answer.VAGUE,
  internal_error = answer.VAGUE,
  internal_server_error = answer.VAGUE,
  internalservererror = answer.VAGUE,
  internalserverexception = answer.VAGUE,
  timeout = "timeout",
  timeout_error = "timeout",
  request_timeout = "timeout",
  invalid_api_key = "auth",
  invalid_authentication = "auth",
  authentication_error = "auth",
  token_expired = "auth",
  account_deactivated = { category = "permission", fallback = true },
  permission_error = "permission",
  insufficient_permissions = "permission",
  mismatched_organization = "permission",
  unsupported_country_region_territory = "permission",
  not_found_error = "not_found",
  notfounderror = "not_found",
  model_not_found = "not_found",
  model_not_available = "not_found",
  -- a conversation or file of this provider: no other one knows it either
  previous_response_not_found = { category = "not_found", fallback = false },
  context_length_exceeded = "context_length",
  content_policy_violation = "content_policy",
  content_filter = "content_policy",
  moderation_blocked = "content_policy",
  request_too_large = "payload_too_large",
  conversation_locked = "conflict",
  budget_exceeded = "billing",
  credit_limit = "billing",
  not_enough_balance = "billing",
  insufficient_user_quota = "billing", -- New API and One API, as the next four
  pre_consume_token_quota_failed = "billing",
  sensitive_words_detected = "content_policy",
  prompt_blocked = "content_policy",
  empty_response = "server",
  insufficient_credits = "billing",
  capacity_exceeded = "overloaded",
  service_tier_capacity_exceeded = "overloaded",
  unavailable_model = "not_found",
  tokens_limit_reached = "context_length",
  invalid_token = "auth",
  insufficient_funds = "billing",
  queue_exceeded = "overloaded",
  exceed_context_size_error = "context_length",
  censorship_blocked = "content_policy",
  organization_restricted = { category = "permission", fallback = true },
  model_deprecated = "not_found",
  modeldeprecated = "not_found",
  -- Azure
  contentfilter = "content_policy",
  permissiondenied = "permission", -- comes with 401, too: the principal lacks a role
  subscriptiondisabled = "billing",
  deploymentnotfound = "not_found",
  toomanyrequests = "rate_limit",
  too_many_requests = "rate_limit",
  ratelimitreached = "rate_limit",
  nocapacity = "overloaded",
  responsibleaipolicyviolation = "content_policy",
  -- Token360
  api_key_frozen = "permission",
  model_access_denied = "permission",
  insufficient_balance = "billing",
  -- Moonshot
  exceeded_current_quota_error = "billing", -- comes with 429
  engine_overloaded_error = "overloaded",   -- comes with 429
  rate_limit_reached_error = "rate_limit",
  invalid_authentication_error = "auth",
  incorrect_api_key_error = "auth",
  permission_denied_error = "permission",
  resource_not_found_error = "not_found",
  unexpected_output = "server",
  -- Google's names, as its OpenAI-compatible addresses send them
  resource_exhausted = { category = "rate_limit", sure = true },
  unavailable = "overloaded",
  deadline_exceeded = "timeout",
  internal = "server",
  aborted = "conflict",
  unauthenticated = "auth",
  permission_denied = "permission",
  failed_precondition = "permission", -- region, or no billing account
  not_found = "not_found",
  -- and the reasons that go with them
  ratelimitexceeded = "rate_limit",
  userratelimitexceeded = "rate_limit",
  dailylimitexceeded = { category = "rate_limit", retryable = false },
  api_key_invalid = "auth",
  access_token_expired = "auth",
  access_token_type_unsupported = "auth",
  credentials_missing = "auth",
  billing_disabled = "billing",
  service_disabled = "permission",
  consumer_suspended = "permission",
  consumer_invalid = "permission",
  api_key_service_blocked = "permission",
  api_key_http_referrer_blocked = "permission",
  api_key_ip_address_blocked = "permission",
}

-- Sent with 400, 401, 404 and 429 alike, so the status says it better.
local WEAK = {
  invalid_request_error = true,
  badrequesterror = true,
  bad_request = true,
  bad_request_error = true,
  invalid_argument = true,
  validation_error = true,
  validationexception = true, -- AWS
}

--- Values of an `error` field that mean "no error" (null always does).
openai.FINE = { false, "" }

--- A function for `classify`. `more` (may be nil) adds codes of one's own, in small letters, and wins over those
--- above. `family` names one of lib/providers.lua that counts whatever the provider is called; false: none does; nil:
--- the provider's name decides. The function may be given what `answer.read` gave, too.
function openai.classifier(more, family)
  local codes = {}
  for code, row in pairs(CODES) do codes[code] = row end
  for code, row in pairs(more or {}) do codes[code] = row end
  if family then family = providers.family(family) end
  return function(a, said)
    return answer.classify(a, codes, WEAK, family, said)
  end
end

--- For `usage`: chat completions, completions, embeddings, the Responses API (whose stream nests it in `response`), and
--- Moonshot's streams, which tell it beside the last choice. What was read from a cache is part of the input, and has
--- names of its own at DeepSeek and at Moonshot.
openai.USAGE = {
  at = { "usage", "response.usage", "choices.*.usage" },
  input = { "prompt_tokens", "input_tokens" },
  output = { "completion_tokens", "output_tokens" },
  cached = {
    "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens",
    "prompt_cache_hit_tokens", "cached_tokens",
  },
  total = { "total_tokens" }, -- rerankers say nothing else
}

--- For `stream`: chat completions, completions, the Responses API, and the events of its relatives (speech, images).
--- `error_in_data` (may be nil) replaces the fields that say error in an event.
function openai.stream(error_in_data)
  return {
    type_field = "type",
    end_data = { "[DONE]" },
    error_types = { "error", "response.failed" },
    error_in_data = error_in_data or { error = openai.FINE },
    end_types = {
      "response.completed", "response.incomplete", "response.cancelled",
      "speech.audio.done", "transcript.text.done", "image_generation.completed", "image_edit.completed",
    },
    lifecycle_types = {
      "response.created", "response.queued", "response.in_progress",
      "response.output_item.added", "response.content_part.added", "response.reasoning_summary_part.added",
    },
    content_types = {
      "response.output_text.done", "response.output_item.done", "response.function_call_arguments.done",
      "response.image_generation_call.partial_image", "response.audio.delta",
      "speech.audio.delta", "image_generation.partial_image", "image_edit.partial_image",
    },
    content_paths = {
      "choices.*.delta.!role",   -- text, tool calls, reasoning, refusals, audio: everything but who speaks
      "choices.*.text",          -- completions
      "choices.*.message.content",
      "delta",                   -- response.output_text.delta and every other event named *.delta
    },
    finish_paths = { "choices.*.finish_reason" },
    json = true,
    bare_errors = true,    -- the SDKs throw for {"error": ...}, whatever its type
    default = "lifecycle", -- a chunk that only names the role, usage, filter results: the client can do without
  }
end

return openai
