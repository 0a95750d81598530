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

-- An answer with that code, as `classify` gets it.
local function answer(code)
  return { status = 429, category = "rate_limit", provider = "openai", body = "", header = function() end,
           mentions = function() end, error = function() return { code:lower(), code = code } end }
end

test("a dialect may choose a family itself, or none", function(t)
  local openai = require "lib.openai"
  local own = { queue_full = { category = "overloaded", retryable = false } }
  t:eq(openai.classifier(own)(answer "insufficient_quota").category, "billing")
  t:eq(openai.classifier(own, "alibaba")(answer "insufficient_quota").category, "rate_limit")
  t:eq(openai.classifier(own, "alibaba")(answer "Throttling.RateQuota").category, "rate_limit")
  t:eq(openai.classifier(own, "alibaba")(answer "queue_full").retryable, false)
  local qwen = answer "insufficient_quota"
  qwen.provider = "qwen"
  t:eq(openai.classifier(own)(qwen).category, "rate_limit")
  t:eq(openai.classifier(own, false)(qwen).category, "billing")
end)
