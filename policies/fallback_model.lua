--- Goes to another model or provider when this one cannot take the call.
--
-- Put it after retry: then a failure that may pass is tried again where it happened first, and what retry declines
-- (attempts used up, not retryable, refused by an open circuit breaker) comes here and goes on at once, without a wait.
--
--   use "fallback_model" {
--     models = {
--       ["kimi-k2"]  = { "moonshot/moonshot-v1-128k", "token360/glm-5.1" }, -- in this order
--       ["openai/*"] = { "token360/glm-5.1" },                              -- keys may be globs, targets may not
--     },
--     categories = { context_length = { ["*-8k"] = { "moonshot/moonshot-v1-128k" } } },
--   }
--
-- A key is matched against "provider/model" and against the model of the call's first target; the most specific one
-- counts. A target without "/" is a model of the provider that the call went to first. A list in `categories` replaces
-- the one in `models` for errors of that category: after "the prompt is too long" only a larger model helps.
--
-- The client is told who answered (header parry-target). Requests are passed on as they are, so list models that take
-- the same ones, at providers whose dialect is the client's.

local category = require "lib.category"
local match = require "lib.match"

-- The target that the call went to first; the lists are about it, however far the call has wandered since.
local function first_target(call)
  local name = call.ledger[1].target
  local slash = name:find("/", 1, true)
  if not slash then return name, name, "" end -- a call without a model
  return name, name:sub(1, slash - 1), name:sub(slash + 1)
end

-- `sorted`: of match.sort.
local function list_for(map, sorted, name, model)
  if model == "" then
    return map["*"], "*"
  end
  return match.first(sorted, name, model)
end

local function was_tried(call, target)
  for i = 1, #call.ledger do
    if call.ledger[i].target == target then return true end
  end
  return false
end

-- { ["glob"] = { "target", ... } }, or what is wrong with it.
local function complaint(where, map)
  if type(map) ~= "table" then
    return where .. " must be a table { [\"model\"] = { \"provider/model\", ... } }"
  end
  for pattern, targets in pairs(map) do
    if type(pattern) ~= "string" then return where .. ": keys are models or globs" end
    if type(targets) ~= "table" or #targets == 0 then
      return ("%s[%q] must be a list { \"provider/model\", ... }"):format(where, pattern)
    end
    for i, target in ipairs(targets) do
      if type(target) ~= "string" or target == "" or target:find("*", 1, true) then
        return ("%s[%q][%d] must be a target \"provider/model\", written out"):format(where, pattern, i)
      end
    end
  end
end

return policy {
  name = "fallback_model",
  doc = "go to another model or provider when this one cannot take the call",

  params = {
    models     = param { {}, type = "map", of = "list", of_of = "target",
                         doc = "where to go from a model: { [\"model or glob\"] = { \"provider/model\", ... } }" },
    categories = param { {}, type = "map", of = "any",
                         doc = "the same for single categories, instead of `models`: { context_length = { ... } }" },
    never      = param { {}, type = "list", of = "category", doc = "categories that end the call here" },
  },

  check = function(self)
    local wrong = complaint("models", self.models)
    for name, map in pairs(self.categories) do
      wrong = wrong or category.complaint(name) or complaint("categories." .. name, map)
    end
    if wrong then return wrong end
    self.sorted = { models = match.sort(self.models), categories = {} }
    for name, map in pairs(self.categories) do self.sorted.categories[name] = match.sort(map) end
    self.ends = {}
    for _, never in ipairs(self.never) do self.ends[never] = true end
  end,

  when = { fallback = true }, -- the dialect's word: would another target help?

  on_error = function(self, call, err)
    local failed = err.category
    if self.ends[failed] then return end
    local name, provider, model = first_target(call)
    local targets, key
    local own, sorted = self.categories[failed], self.sorted
    if own then
      targets, key = list_for(own, sorted.categories[failed], name, model)
    end
    if not targets then
      targets, key = list_for(self.models, sorted.models, name, model)
    end
    if not targets then return end
    for _, target in ipairs(targets) do
      if not target:find("/", 1, true) then
        target = provider .. "/" .. target
      end
      if not was_tried(call, target) then
        return fallback {
          target = target,
          why = failed .. " at " .. call.target.name .. "; next for " .. key,
        }
      end
    end
  end,
}
