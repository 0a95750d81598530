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

-- Where alerts go: a POST of a JSON object to this URL ---------------------------------------------------------------

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

-- Anthropic's Messages API. Its own route because its clients speak another dialect, so fallbacks differ, too.
route "/v1/messages*" {
  to = "anthropic",
  deadline = 120,
  timeouts = { connect = 5, first_byte = 60, idle = 60 },
  chain = {
    use "circuit_breaker" { failures = 5, cooldown = 10, to = "ops" },
    use "retry" { max_attempts = 4 },
    use "fallback_model" {
      models = {
        -- ["claude-opus-*"] = { "anthropic/claude-sonnet-4-5" },
      },
    },
    use "alert" { to = "ops" },
  },
}
