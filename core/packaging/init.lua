-- The one file that is yours: who the providers are, which requests go where, and which policies they use. The policies
-- came with parry (/usr/share/parry/policies); a file of the same name in this folder takes the place of one.
--
-- Edit and save: a running parry takes it over, or refuses it with its line and goes on with what it had.
--
--   parry check              does it load? which secrets are missing?
--   parry reload             take it over now, and say how that went
--
-- All words and policies: /usr/share/parry/policies/README.md; a larger example: init.lua beside it.

-- secret "NAME" is looked for in $CREDENTIALS_DIRECTORY/NAME (systemd: LoadCredential=NAME:FILE), /run/secrets/NAME,
-- the file named by NAME_FILE, and the environment variable NAME.
provider "openai" {
  base_url = "https://api.openai.com/v1",
  dialect = "openai",
  auth = bearer(secret "OPENAI_API_KEY"),
}

-- provider "backup" {
--   base_url = "https://llm.example.com/v1",
--   dialect = "openai",
--   auth = bearer(secret "BACKUP_API_KEY"),
-- }

-- sink "ops" { webhook = secret "OPS_WEBHOOK" }       -- where alerts go; try it: parry alert test ops

-- clients { file = "clients.json" }                   -- only who has a key may call; then also from other machines

route "/v1/*" {
  to = "openai",
  deadline = 120, -- seconds until the client has the first content, all attempts and waits included
  chain = {
    use "circuit_breaker" { failures = 5, cooldown = 10 },
    use "retry" { max_attempts = 4 },
    -- use "fallback_model" { models = { ["gpt-*"] = { "backup/some-model" } } },
    -- use "alert" { to = "ops" },
  },
}
