local providers = require "lib.providers"

test("names are matched loosely", function(t)
  local alibaba, zhipu = providers.family("alibaba"), providers.family("zhipu")
  for _, name in ipairs { "alibaba", "Alibaba-SG", "dashscope", "my_qwen", "qwen3", "aliyun.cn", "myqwenhost" } do
    t:ok(providers.of(name) == alibaba, name)
  end
  for _, name in ipairs { "zhipu", "glm", "glm4", "glm-coding", "z.ai", "Z-AI", "zai", "bigmodel" } do
    t:ok(providers.of(name) == zhipu, name)
  end
  for _, name in ipairs { "openai", "azure-eastus", "p", "", "spark", "bark2", "quagglms" } do
    t:eq(providers.of(name), nil, name)
  end
  t:eq(providers.of(nil), nil)
end)

-- { provider, status, code, category, retried }
local CASES = {
  { "openai", 429, "insufficient_quota", "billing", false },
  { "qwen", 429, "insufficient_quota", "rate_limit", true },
  { "alibaba", 429, "Throttling.AllocationQuota", "rate_limit", true },
  { "alibaba", 403, "AllocationQuota.FreeTierOnly", "billing", false },
  { "alibaba", 400, "Arrearage", "billing", false },
  { "zhipu", 429, 1113, "billing", false },
  { "zhipu", 429, "1302", "rate_limit", true },
  { "zhipu", 429, "1304", "rate_limit", false },
  { "zhipu", 429, "1305", "overloaded", true },
  { "zhipu", 400, "1301", "content_policy", false },
  { "p", 429, "1113", "rate_limit", true },
  { "doubao", 429, "ServerOverloaded", "overloaded", true },
}

test("the same code at different providers", function(t)
  t:use("retry", { max_attempts = 2, base = 0, cap = 1, jitter = "none" })
  for _, case in ipairs(CASES) do
    local name, status, code, category, retried = table.unpack(case)
    local step = { status = status, body = { error = { code = code, message = "as it says" } } }
    t:provider(name, { step, retried and step or nil, dialect = "openai" })
    t:route { to = name }
    local r = t:call { model = "m" }
    t:eq(r.ledger[1].category, category, name .. " " .. code)
    t:eq(r.upstream_calls, retried and 2 or 1, name .. " " .. code)
  end
end)
