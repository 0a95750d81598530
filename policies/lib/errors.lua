--- Errors as clients expect them, in the shape of the API that they speak or in one of the house's own.
--
-- For policies that answer by themselves: validate, file_check, standard_errors. An error here is a table:
--
--   category     one of README.md's; says the type
--   status       HTTP status of the answer
--   message      for people
--   code         text for programs; the category when there is none
--   param        path of the field that is wrong, if one is ("messages[3].content")
--   details      list of { field, message, code }, if several things are wrong
--   retry_after  seconds

local time = require "lib.time"

local errors = {}

--- Styles that there are; "client" is the one of the call's dialect.
errors.STYLES = { "client", "openai", "anthropic", "kimi", "house" }

--- The status that parry itself answers with for a category (CONTRACT).
errors.STATUS = {
  auth = 401, permission = 403, billing = 402, rate_limit = 429, overloaded = 503, server = 503, timeout = 504,
  network = 502, invalid_request = 400, not_found = 404, context_length = 400, content_policy = 400, conflict = 409,
  payload_too_large = 413, cancelled = 499, unknown = 503,
}

--- What went wrong, in words that give nothing away.
errors.TEXT = {
  auth = "the gateway's credential for the model was not accepted",
  permission = "this model or feature may not be used",
  billing = "the quota for this model is used up",
  rate_limit = "too many requests; try again later",
  overloaded = "the model is overloaded at the moment; try again later",
  server = "the model's provider failed",
  timeout = "no answer came in time",
  network = "the model's provider could not be reached",
  invalid_request = "the request is not valid",
  not_found = "there is no such model or path",
  context_length = "the prompt is longer than the model takes",
  content_policy = "the request was refused by content rules",
  conflict = "another request is in the way; try again",
  payload_too_large = "the request is too large",
  cancelled = "the request was cancelled",
  unknown = "the request failed",
}

--- What errors have as their `type`, by category, here and in the dialects: what users of the official SDKs read. The
--- exception that they get follows from the HTTP status.
errors.TYPES = {
  openai = {
    auth = "authentication_error", permission = "permission_error", billing = "insufficient_quota",
    rate_limit = "rate_limit_error", overloaded = "service_unavailable_error", server = "server_error",
    timeout = "timeout_error", network = "server_error", invalid_request = "invalid_request_error",
    not_found = "not_found_error", context_length = "invalid_request_error",
    content_policy = "invalid_request_error", conflict = "conflict_error",
    payload_too_large = "invalid_request_error", cancelled = "request_cancelled", unknown = "api_error",
  },
  anthropic = {
    auth = "authentication_error", permission = "permission_error", billing = "billing_error",
    rate_limit = "rate_limit_error", overloaded = "overloaded_error", server = "api_error",
    timeout = "timeout_error", network = "api_error", invalid_request = "invalid_request_error",
    not_found = "not_found_error", context_length = "invalid_request_error",
    content_policy = "invalid_request_error", conflict = "invalid_request_error",
    payload_too_large = "request_too_large", cancelled = "api_error", unknown = "api_error",
  },
}

local KIMI_CODES = {
  auth = -2002, billing = -2006, rate_limit = -2001, not_found = -1002, payload_too_large = -2004, conflict = -2005,
  invalid_request = -2000, context_length = -2000, content_policy = -2000, permission = -2000, cancelled = -2000,
}

local SHAPES = {}

-- The SDKs read message, type, param and code; what is more passes them by.
function SHAPES.openai(_, err)
  return {
    error = {
      message = err.message,
      type = errors.TYPES.openai[err.category],
      param = err.param or json.null,
      code = err.code or err.category,
      details = err.details,
    },
  }
end

function SHAPES.anthropic(call, err)
  return {
    type = "error",
    error = { type = errors.TYPES.anthropic[err.category], message = err.message },
    request_id = call.id,
  }
end

function SHAPES.kimi(_, err)
  local code = err.code and err.code:find("^%-%d+$") and math.tointeger(tonumber(err.code))
  return { errcode = code or KIMI_CODES[err.category] or -1000, errmsg = err.message, data = err.details or json.null }
end

-- The id of the client's trace (W3C Trace Context §3.2), if it has one.
local function trace_id(call)
  local header = call:header("traceparent")
  local id = header and header:match("^%x%x%-(%x+)%-%x+%-%x%x")
  return id and #id == 32 and id:find("[^0]") and id:lower() or nil
end

function SHAPES.house(call, err)
  return {
    code = err.code or err.category,
    message = err.message,
    statusCode = err.status,
    requestId = call.id,
    timestamp = time.iso(now()),
    details = json.array(err.details or {}),
    path = call.path,
    method = call.method,
    traceId = trace_id(call) or json.null,
  }
end

--- The style that `style` comes to for this call.
function errors.style_of(call, style)
  if style ~= "client" then return style end
  return SHAPES[call.dialect] and call.dialect ~= "house" and call.dialect or "openai"
end

--- The body of an error in a style, as a table.
function errors.body(call, style, err)
  return SHAPES[errors.style_of(call, style)](call, err)
end

--- The verdict that answers with it.
function errors.respond(call, style, err, why)
  return respond {
    status = err.status,
    headers = { ["content-type"] = "application/json",
                ["retry-after"] = err.retry_after and ("%d"):format(math.ceil(err.retry_after)) or nil },
    body = errors.body(call, style, err),
    why = why,
  }
end

--- One error for all that is wrong with a request: `wrong` is a list of { field, message, code }, in order. The
--- message names every field.
function errors.of_fields(wrong, err)
  local texts = {}
  for i, row in ipairs(wrong) do
    texts[i] = row.field == "" and row.message or row.field .. ": " .. row.message
  end
  return {
    category = err.category or "invalid_request",
    status = err.status or 400,
    code = err.code or wrong[1].code,
    message = table.concat(texts, "; "),
    param = wrong[1].field ~= "" and wrong[1].field or nil,
    details = wrong,
  }
end

return errors
