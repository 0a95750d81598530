--- The one file to open first: who the providers are, which requests go where, and what happens when they fail.
--
-- Everything here may be edited while parry runs. A mistake changes nothing but the report: the file is refused with
-- its line, and what served before goes on serving. Look before you save:
--
--   parry check              does it load? which secrets are missing?
--   parry test               do the policies still do what their tests say?
--
-- README.md beside this file explains the words and every policy.

-- Providers -------------------------------------------------------------------------------------------------------
--
-- secret "NAME" is looked for in $CREDENTIALS_DIRECTORY/NAME, /run/secrets/NAME, the file named by NAME_FILE, and the
-- environment variable NAME. What is missing is a warning, and an error only for calls that need it. `dialect` names a
-- file in dialects/: how the provider spells errors and streams.

provider "openai" {
  base_url = "https://api.openai.com/v1",
  dialect = "openai",
  auth = bearer(secret "OPENAI_API_KEY"),
}

-- Its route below is "/v1/messages*", and what that star matches is appended here: nothing, or "/count_tokens".
provider "anthropic" {
  base_url = "https://api.anthropic.com/v1/messages",
  dialect = "anthropic",
  auth = header("x-api-key", secret "ANTHROPIC_API_KEY"),
}

provider "moonshot" {
  base_url = "https://api.moonshot.cn/v1",
  dialect = "openai",
  auth = bearer(secret "MOONSHOT_API_KEY"),
}

provider "token360" {
  base_url = "https://api.token360.ai/v1",
  dialect = "openai",
  auth = bearer(secret "TOKEN360_API_KEY"),
}

-- KIMI's access token expires. It is renewed a minute before that, once however many calls wait, and its rotated
-- refresh token is kept under --state.
provider "kimi" {
  base_url = "https://kimi.internal/v1",
  dialect = "kimi",
  auth = bearer(credential "kimi"),
}

credential "kimi" {
  refresh_token = secret "KIMI_REFRESH_TOKEN",
  token_url = "https://kimi.internal/token/refresh",
  grant = "kimi",
}

-- Where alerts go: a POST of a JSON object to this URL. Or slack, feishu, dingtalk, wecom, pagerduty, sentry, smtp. Try
-- it with `parry alert test ops`.

sink "ops" { webhook = secret "OPS_WEBHOOK" }

-- Who may call: everybody on this machine. With the next line only who has a key, and other machines may call, too;
-- `parry client add NAME` makes one.

-- clients { file = "clients.json" }

-- Routes ------------------------------------------------------------------------------------------------------------
--
-- The most specific pattern counts; what `*` matched is appended to the provider's base_url. `to` is a target, or
-- by_model { ["glob over the model"] = "provider" or "provider/model" }. Policies of a chain are asked in this order,
-- and after a failure the first one that says something wins:
--
--   circuit_breaker  does not even ask a target that keeps failing
--   token_refresh    renews a token that expired, then tries again
--   retry            waits and tries again where the failure may pass
--   fallback_model   goes to another model: name yours below
--   alert            watches, and tells people
--
-- More are ready and not in use, each with a section in README.md. Where they belong in a chain:
--
--   use "client_limits" { limits = { ["*"] = { calls_per_minute = 60, tokens_per_day = 2000000 } } },
--   use "validate",                                      -- refuses wrong requests before they cost anything
--   use "file_check",                                    -- looks at the files that requests name
--   use "session_queue",                                 -- one call of a conversation at a time
--   use "concurrency" { slots = 64, max_wait = 10 },     -- at most so many calls at a target
--   use "rate_limit" { limit = 500, per = 60 },          -- your account's limit, kept before the provider says 429
--   use "circuit_breaker",
--   use "health" { interval = 30, to = "ops" },          -- asks targets on purpose; sends requests of its own
--   use "chaos" { experiments = { busy = { category = "overloaded", rate = 0.2 } } },   -- armed by `parry chaos arm`
--   use "token_refresh",
--   use "keys" { to = "ops" },                           -- several keys of one provider
--   use "retry",
--   use "fallback_model",
--   use "alert",
--   use "standard_errors" { style = "client" },          -- one shape of errors, whatever the provider said

-- OpenAI's chat completions, completions, Responses, embeddings, ... and whoever speaks like it.
route "/v1/*" {
  to = by_model {
    ["gpt-*"] = "openai",
    ["o1*"] = "openai",
    ["o3*"] = "openai",
    ["o4*"] = "openai",
    ["text-embedding-*"] = "openai",
    ["moonshot-*"] = "moonshot",
    ["kimi-*"] = "kimi",
    ["*"] = "token360", -- everything else, and requests without a model
  },
  deadline = 120, -- seconds until the client has the first content, all attempts and waits included
  timeouts = { connect = 5, first_byte = 30, idle = 60 },
  chain = {
    use "circuit_breaker" { failures = 5, cooldown = 10, to = "ops" },
    use "token_refresh" { to = "ops" },
    use "retry" { max_attempts = 4 },
    use "fallback_model" {
      models = {
        ["kimi-k2"] = { "moonshot/moonshot-v1-128k", "token360/glm-5.1" },
      },
      categories = {
        context_length = { ["moonshot-v1-*"] = { "moonshot/moonshot-v1-128k" } },
      },
    },
    use "alert" { to = "ops" },
  },
}

-- Anthropic's Messages API: its own route because its clients speak another dialect. A fallback may all the same go to
-- an OpenAI-shaped provider, and the other way round: the core translates (README.md, "Across dialects").
route "/v1/messages*" {
  to = "anthropic",
  deadline = 120,
  timeouts = { connect = 5, first_byte = 60, idle = 60 },
  chain = {
    use "circuit_breaker" { failures = 5, cooldown = 10, to = "ops" },
    use "retry" { max_attempts = 4 },
    use "fallback_model" {
      models = {
        -- ["claude-opus-*"] = { "anthropic/claude-sonnet-4-5", "openai/gpt-5.1" },
      },
    },
    use "alert" { to = "ops" },
  },
}
