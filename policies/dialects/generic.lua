--- For a provider that speaks like nobody in particular: any shape of error is read, any stream passes, and nothing is
--- translated. A provider of a known family is better off with the family's dialect, which knows what a stream's end
--- looks like: here every stream that the connection ended well has ended well.

local openai = require "lib.openai"

local FINE_TEXTS = { false, "", 0, "0" }

-- Fields that say error in answers with a good status, at the providers that do so.
local ERRORS = {
  error = FINE_TEXTS,
  errcode = { 0, "0" },
  error_code = FINE_TEXTS,
  error_type = FINE_TEXTS,
  ["base_resp.status_code"] = { 0, "0" }, -- MiniMax
  ["Response.Error.Code"] = { "" },       -- Tencent
}

return dialect {
  name = "generic",
  doc = "any HTTP API: errors of any shape",

  error_in_200 = ERRORS,
  stream = {
    type_field = "type",
    end_data = { "[DONE]" },
    error_types = { "error" },
    error_in_data = ERRORS,
    open_end = true,
    default = "content",
  },

  classify = openai.classifier {
    throttling = "rate_limit",
    throttled = "rate_limit",
    throttlingexception = "rate_limit",
    unauthorized = "auth",
    unauthenticated = "auth",
    forbidden = "permission",
    invalidapikey = "auth",
    invalidparameter = "invalid_request",
    datainspectionfailed = "content_policy",
    arrearage = "billing",
    authfailure = "auth",
    requestlimitexceeded = "rate_limit",
    limitexceeded = "rate_limit",
    resourceinsufficient = "overloaded",
  },
}
