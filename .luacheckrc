-- What policy files find in their environment. luacheck reads this file; so do people.
std = "lua54"
max_line_length = 120
codes = true
unused_args = false -- handlers have the signature they have
exclude_files = { "build", "**/node_modules" }

-- The sandbox has fewer functions than Lua (policies/README.md); using one is an error here already.
local removed = { "collectgarbage", "coroutine", "debug", "dofile", "io", "load", "loadfile", "next", "os", "package",
                  "rawset", "warn", "xpcall" }

-- Declarations, values and host functions for every policy file.
local policy_globals = {
  "policy", "param", "dialect",
  "retry", "fallback", "rotate", "renew", "fail", "respond", "route", "hold", "refuse", "inject", "secret", "now",
  "random", "digest", "sleep", "http", "health", "host", "notify", "store", "queue", "keys", "json", "log",
}

-- Only in init.lua, where providers and routes are declared.
local init_globals = {
  "provider", "credential", "service", "sink", "clients", "use", "by_model", "bearer", "header", "passthrough",
}

files["policies"] = { read_globals = policy_globals, not_globals = removed }
files["policies/**/init.lua"] = { read_globals = init_globals }
files["policies/**/*_test.lua"] = { read_globals = { "test" } }
files["tests"] = { read_globals = policy_globals, not_globals = removed }
files["tests/**/init.lua"] = { read_globals = init_globals }
files["tests/**/*_test.lua"] = { read_globals = { "test" } }
files["bindings/examples/**/policies"] = { read_globals = policy_globals, not_globals = removed }
files["bindings/examples/**/policies/init.lua"] = { read_globals = init_globals }
files["bindings/examples/**/policies/*_test.lua"] = { read_globals = { "test" } }
files["core/packaging"] = { read_globals = policy_globals, not_globals = removed }
files["core/packaging/init.lua"] = { read_globals = init_globals }
