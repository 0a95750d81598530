--- What single providers mean by their error codes, where others mean something else or nothing by them.
--
-- A family is data: `codes` by code, type or state in small letters (of a code with dots the part before the first one
-- is looked up, too) and `phrases` like those of lib/answer.lua. It wins over what a dialect knows. Which family counts
-- follows from the provider's name in init.lua, matched loosely ("alibaba-sg", "my_qwen", "glm4"); a dialect file may
-- choose one by its name instead (README.md, "Dialects").

local providers = {}

local LATER = { category = "rate_limit", retryable = false } -- a quota of hours, days or months is used up

local FAMILIES = {
  alibaba = { -- Model Studio, DashScope; native names and those of its OpenAI-compatible addresses
    codes = {
      insufficient_quota = "rate_limit", -- tokens per minute; OpenAI means money
      throttling = "rate_limit",
      allocationquota = "rate_limit",
      ["allocationquota.freetieronly"] = "billing",
      limitrequests = "rate_limit",
      limit_requests = "rate_limit",
      limit_burst_rate = "rate_limit",
      arrearage = "billing",
      prepaidbilloverdue = "billing",
      postpaidbilloverdue = "billing",
      commoditynotpurchased = "billing",
      billoverdue = "billing",
      datainspectionfailed = "content_policy",
      data_inspection_failed = "content_policy",
      invalidapikey = "auth",
      accessdenied = "permission",
      access_denied = "permission",
      ["model.accessdenied"] = "permission",
      workspace = "permission", -- Workspace.AccessDenied
      modelnotfound = "not_found",
      model_not_supported = "not_found",
      internalerror = "server",
      internal_error = "server",
      ["internalerror.timeout"] = "timeout",
      systemerror = "server",
      modelservicefailed = "server",
      requesttimeout = "timeout",
      responsetimeout = "timeout",
      modelservingerror = "overloaded",
      modelunavailable = "overloaded",
      serviceunavailable = "overloaded",
      ["badrequest.toolarge"] = "payload_too_large",
    },
    phrases = {
      { category = "billing", "free allocated quota exceeded", "free quota", "free tier of the model" },
      { category = "context_length", "range of input length", "input length should be" },
      { category = "content_policy", "inappropriate content" },
      { category = "rate_limit", "exceeded your current quota", "allocated quota exceeded" },
    },
  },
  zhipu = { -- BigModel, Z.AI, GLM; all of them come with 429 or 400
    codes = {
      ["500"] = "server",
      ["1000"] = "auth", ["1001"] = "auth", ["1002"] = "auth", ["1003"] = "auth", ["1004"] = "auth",
      ["1100"] = "permission",
      ["1110"] = "permission", ["1111"] = "permission", ["1112"] = "permission", ["1121"] = "permission",
      ["1113"] = "billing",          -- in arrears
      ["1120"] = "server",           -- the account cannot be reached now
      ["1200"] = "invalid_request",
      ["1210"] = "invalid_request", ["1212"] = "invalid_request", ["1213"] = "invalid_request",
      ["1214"] = "invalid_request", ["1215"] = "invalid_request",
      ["1211"] = "not_found",
      ["1220"] = "permission",
      ["1221"] = "not_found", ["1222"] = "not_found",
      ["1230"] = "server", ["1234"] = "server",
      ["1231"] = "conflict",         -- the same request is on its way
      ["1261"] = "context_length",
      ["1300"] = "content_policy", ["1301"] = "content_policy",
      ["1302"] = "rate_limit", ["1303"] = "rate_limit",
      ["1304"] = LATER,              -- calls of a day
      ["1305"] = "overloaded", ["1312"] = "overloaded",
      ["1308"] = LATER, ["1310"] = LATER, ["1316"] = LATER, ["1317"] = LATER, ["1318"] = LATER, ["1319"] = LATER,
      ["1320"] = LATER, ["1321"] = LATER,                                 -- windows of a plan: hours to a month
      ["1309"] = "billing",          -- the plan has ended
      ["1311"] = "permission",       -- the plan does not have the model
      ["1313"] = "permission", ["1314"] = "permission", ["1315"] = "permission", -- fair use, kind of key
    },
  },
  deepseek = {
    codes = {},
    phrases = {
      { category = "not_found", "model not exist" },
      { category = "content_policy", "content exists risk" },
      { category = "overloaded", "service is too busy" },
    },
  },
  moonshot = {
    codes = {},
    phrases = {
      { category = "overloaded", "engine is currently overloaded" },
      { category = "billing", "usage limit for this billing cycle" }, -- a plan's, with 403
    },
  },
  volcengine = { -- Ark, Doubao
    codes = {
      accountoverdueerror = "billing",
      setlimitexceeded = "billing",   -- the free quota, or a limit that the customer set
      quotaexceeded = LATER,
      ratelimitexceeded = "rate_limit",
      modelaccountrpmratelimitexceeded = "rate_limit",
      modelaccounttpmratelimitexceeded = "rate_limit",
      inflightbatchsizeexceeded = "rate_limit",
      serveroverloaded = "overloaded",
      internalserviceerror = "server",
      sensitivecontentdetected = "content_policy",
      inputtextsensitivecontentdetected = "content_policy",
      inputimagesensitivecontentdetected = "content_policy",
      outputtextsensitivecontentdetected = "content_policy",
      invalidendpointormodel = "not_found",
      modelnotopen = "permission",
      accessdenied = "permission",
      authenticationerror = "auth",
      invalidaccountstatus = "permission",
    },
  },
  minimax = {
    codes = {
      ["1000"] = "server", ["1013"] = "server", ["1024"] = "server", ["1033"] = "server",
      ["1001"] = "timeout",
      ["1002"] = "rate_limit", ["1039"] = "rate_limit", ["1041"] = "rate_limit",
      ["1004"] = "auth", ["2049"] = "auth",
      ["1008"] = "billing",
      ["1026"] = "content_policy", ["1027"] = "content_policy",
      ["1042"] = "invalid_request", ["2013"] = "invalid_request",
      ["2056"] = LATER,
    },
  },
  baidu = { -- Qianfan
    codes = {
      ["1"] = "server", ["2"] = "overloaded", ["336000"] = "server", ["336100"] = "overloaded",
      ["4"] = "rate_limit", ["18"] = "rate_limit", ["336501"] = "rate_limit", ["336502"] = "rate_limit",
      ["17"] = LATER, ["19"] = LATER,
      ["6"] = "permission", ["336004"] = "permission",
      ["13"] = "auth", ["14"] = "auth", ["15"] = "auth", ["100"] = "auth", ["110"] = "auth", ["111"] = "auth",
      ["336001"] = "invalid_request", ["336002"] = "invalid_request", ["336003"] = "invalid_request",
      ["336005"] = "invalid_request", ["336006"] = "invalid_request",
      ["336007"] = "context_length", ["336103"] = "context_length", ["336104"] = "invalid_request",
      ["336105"] = "invalid_request",
      ["336008"] = "content_policy",
    },
  },
  siliconflow = {
    codes = { ["30001"] = "billing", ["20012"] = "not_found", ["50505"] = "overloaded" },
  },
}

--- Rows of phrases as one search takes them: all phrases in one list, and the row of each.
function providers.flat(rows)
  local phrases, owners = {}, {}
  for _, row in ipairs(rows) do
    for _, phrase in ipairs(row) do
      phrases[#phrases + 1], owners[#owners + 1] = phrase, row
    end
  end
  return { phrases = phrases, owners = owners }
end

for _, family in pairs(FAMILIES) do
  family.phrases = family.phrases and providers.flat(family.phrases)
end

-- Words of a provider's name. False: known not to need a family of its own.
local WORDS = {
  alibaba = "alibaba", aliyun = "alibaba", bailian = "alibaba", dashscope = "alibaba", modelstudio = "alibaba",
  qwen = "alibaba", tongyi = "alibaba",
  zhipu = "zhipu", zhipuai = "zhipu", bigmodel = "zhipu", chatglm = "zhipu", glm = "zhipu", zai = "zhipu",
  ["z.ai"] = "zhipu", ["z-ai"] = "zhipu",
  deepseek = "deepseek",
  moonshot = "moonshot", kimi = "moonshot",
  volcengine = "volcengine", volces = "volcengine", doubao = "volcengine", ark = "volcengine",
  minimax = "minimax",
  baidu = "baidu", qianfan = "baidu", ernie = "baidu", wenxin = "baidu",
  siliconflow = "siliconflow",
  openai = false, azure = false, anthropic = false, claude = false, google = false, gemini = false, vertex = false,
  bedrock = false, openrouter = false, litellm = false, groq = false, mistral = false, together = false,
  token360 = false, ollama = false, vllm = false, xai = false,
}

-- Long enough not to turn up in other words.
local WITHIN = { "alibaba", "dashscope", "bailian", "qwen", "zhipu", "bigmodel", "deepseek", "moonshot", "kimi",
                 "volcengine", "doubao", "minimax", "qianfan", "siliconflow", "z.ai", "z-ai" }

--- The family of that name; raises when there is none.
function providers.family(name)
  return FAMILIES[name] or error(('there is no family "%s" in lib/providers.lua'):format(name), 2)
end

--- The family of a provider that somebody named so in init.lua, or nil.
function providers.of(name)
  local whole = name and WORDS[name]
  if whole ~= nil then return whole and FAMILIES[whole] or nil end
  if not name or name == "" then return nil end
  name = name:lower()
  for word in name:gmatch("%w+") do
    local family = WORDS[word]
    if family == nil then family = WORDS[word:match("^(.-)%d*$")] end
    if family then return FAMILIES[family] end
  end
  for i = 1, #WITHIN do
    if name:find(WITHIN[i], 1, true) then return FAMILIES[WORDS[WITHIN[i]]] end
  end
end

return providers
