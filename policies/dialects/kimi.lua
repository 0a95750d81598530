--- KIMI: requests and streams as OpenAI's, errors as {"errcode": -2001, "errmsg": "...", "data": null}, mostly inside
--- an answer with HTTP 200.
--
-- The system's codes are -1000 to -1099, those of the API -2000 to -2099. 0 is success.

local openai = require "lib.openai"

local classify = openai.classifier {
  ["-1000"] = "server",          -- system error
  ["-1001"] = "invalid_request", -- bad parameters
  ["-1002"] = "not_found",       -- no such route
  ["-2000"] = "invalid_request", -- illegal parameters
  ["-2001"] = "server",          -- the backend timed out or answered wrongly
  ["-2002"] = "auth",            -- the token has expired: renew it, then try again
  ["-2003"] = "invalid_request", -- illegal URL of a remote file
  ["-2004"] = "payload_too_large", -- the remote file is too large
  ["-2005"] = "conflict",        -- a stream of this conversation is still being written
  ["-2006"] = "billing",         -- the free quota is used up
  ["auth.token.invalid"] = "auth", -- the web's addresses name the kind of error instead
  ["auth.token.expired"] = "auth",
}

return dialect {
  name = "kimi",
  doc = "KIMI: OpenAI's requests and streams with errcode errors inside HTTP 200",
  speaks = "openai",

  error_in_200 = { error = openai.FINE, errcode = { 0, "0" }, error_type = openai.FINE },
  usage = openai.USAGE,
  stream = openai.stream { error = openai.FINE, errcode = { 0, "0" }, error_type = openai.FINE },

  classify = function(answer)
    local failure = classify(answer)
    if failure and not failure.category and failure.code and failure.code:find("^%-10%d%d$") then
      failure.category = "server" -- a code of the system's range that is not in the list
    end
    return failure
  end,
}
