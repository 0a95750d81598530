-- What the tests of the bindings run under: nothing here needs a network.

provider "nobody" { base_url = "http://127.0.0.1:1/v1", dialect = "openai" }
provider "own" { host = true }

route "/v1/*" { to = "nobody", chain = { use "retry" { max_attempts = 1 } } }
route "/jobs" { to = "own", repeatable = true, chain = { use "retry" { base = 0.01, max_attempts = 3 } } }
route "/asks" { to = "own", chain = { use "asks" } }
