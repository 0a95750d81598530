--- Azure OpenAI and Foundry: requests, answers and streams as OpenAI's, errors with codes of Azure's own.
--
-- Throttling comes as {"code": "429"}, the content filter as 400 with an inner error, and an API management in front of
-- it all speaks as {"statusCode", "message"}. The first event of a stream holds filter results and no choices: the
-- client can do without, as without all that lib/openai.lua calls lifecycle.

local openai = require "lib.openai"

return dialect {
  name = "azure",
  doc = "Azure OpenAI: deployments and the v1 addresses",
  speaks = "openai",

  error_in_200 = { error = openai.FINE },
  usage = openai.USAGE,
  stream = openai.stream(),
  health = { completion = "/chat/completions" }, -- its list has models, and calls name deployments

  classify = openai.classifier {
    accessdenied = "permission",
    invalidapikey = "auth",
    failedscenario = "server",
    internalservererror = "server",
    serviceunavailable = "overloaded",
    modelnotready = "overloaded",
    quotaexceeded = { category = "rate_limit", retryable = false },
  },
}
