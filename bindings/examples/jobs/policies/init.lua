-- What becomes of jobs that fail. Edit it while the program runs: with options.watch it is taken over at once.

provider "smtp"      { host = true }
provider "relay"     { host = true }
provider "press"     { host = true, timeouts = { attempt = 0.5 } }
provider "warehouse" { host = true }

local again = use "retry" { max_attempts = 4, base = 0.05, cap = 1, jitter = "none" }
local park = use "park"

-- The other mail server when this one cannot be reached.
route "/mail" {
  to = "smtp/mail",
  chain = { again, use "fallback_model" { models = { ["smtp/*"] = { "relay/mail" } } }, park },
}

-- Two at a time. Drawing a picture twice harms nobody, so it may be done again whatever went wrong.
route "/thumbnail" {
  to = "press/thumbnail", repeatable = true,
  chain = { use "concurrency" { slots = 2, max_wait = 10 }, again, park },
}

-- Rows that may be in already are not written again; a warehouse that is down is left alone for a while.
route "/import" {
  to = "warehouse/import",
  chain = { use "circuit_breaker" { failures = 3, cooldown = 30 }, use "done_before", again, park },
}
