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
-- Targets with a weight that stand side by side in a list share the calls: weights = { ["q/a"] = 3, ["r/a"] = 1 } sends
-- three of four that get there to q/a first, and the others to r/a. With `stick` a conversation (call.session) that was
-- answered by a fallback stays there: its prompt is in that provider's cache, and its style stays the same. When that
-- fallback fails, too, the call goes home first, then down the list.
--
-- The client is told who answered (header parry-target). Within a dialect requests are passed on as they are, so
-- list models that take the same ones; for another dialect they are translated (README.md, "Across dialects").

local category = require "lib.category"
local match = require "lib.match"

-- The target that this call is about: where its route sends it. The lists are about that one, however far the call has
-- wandered since.
local function home_of(self, call)
  local name = self.stick and call.vars[self.home_name] or call.ledger[1].target
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
  local ledger = call.ledger
  for i = 1, #ledger do
    if ledger[i].target == target then return true end
  end
  return false
end

local function full_name(target, provider)
  return target:find("/", 1, true) and target or provider .. "/" .. target
end

-- One of the targets from `first` on that share by weight and were not tried: the one that `at` falls on.
local function by_weight(self, targets, first, call, provider)
  local open, sum = {}, 0
  for i = first, #targets do
    local weight = self.weights[targets[i]]
    if not weight then break end
    local name = full_name(targets[i], provider)
    if not was_tried(call, name) then
      sum = sum + weight
      open[#open + 1] = { name = name, upto = sum }
    end
  end
  local at = random() * sum
  for _, one in ipairs(open) do
    if at < one.upto then return one.name end
  end
end

-- The next target for this call, or nil when all were tried.
local function next_target(self, call, targets, home, provider)
  if self.stick and call.vars[self.home_name] and not was_tried(call, home) then return home end
  for i, target in ipairs(targets) do
    local name = full_name(target, provider)
    if not was_tried(call, name) then
      return self.weights[target] and by_weight(self, targets, i, call, provider) or name
    end
  end
end

local function stick_key(home, session)
  return "stick:" .. home .. ":" .. session
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

local function is_listed(map, target)
  for _, targets in pairs(map) do
    for _, listed in ipairs(targets) do
      if listed == target then return true end
    end
  end
end

local function weights_complaint(self)
  for target, weight in pairs(self.weights) do
    if weight <= 0 or weight > 1e6 then
      return ("weights[%q] must be above 0, at most 1000000; got %g"):format(target, weight)
    end
    local listed = is_listed(self.models, target)
    for _, map in pairs(self.categories) do listed = listed or is_listed(map, target) end
    if not listed then return ("weights[%q]: no list has a target of that name"):format(target) end
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
    weights    = param { {}, type = "map", of = "number", doc = "targets that stand side by side in a list share by "
                         .. "weight: { [\"provider/model\"] = 3 }" },
    strip      = param { true, doc = "at another provider take out of the request what only this one understands: "
                         .. "signed thinking, sealed reasoning, thought signatures" },
    stick      = param { type = "number", optional = true, min = 1, max = 86400, unit = "s",
                         doc = "a conversation answered by a fallback stays there until it was silent for this long" },
  },

  check = function(self)
    local wrong = complaint("models", self.models)
    for name, map in pairs(self.categories) do
      wrong = wrong or category.complaint(name) or complaint("categories." .. name, map)
    end
    wrong = wrong or weights_complaint(self)
    if wrong then return wrong end
    self.home_name = self.name .. ".home"
    self.sorted = { models = match.sort(self.models), categories = {} }
    for name, map in pairs(self.categories) do self.sorted.categories[name] = match.sort(map) end
    self.ends = {}
    for _, never in ipairs(self.never) do self.ends[never] = true end
  end,

  when = { fallback = true }, -- the dialect's word: would another target help?
  only_with = { on_request = "stick", on_done = "stick" },

  on_request = function(self, call)
    if not call.session or not call.target then return end
    local home = call.target.name
    local target = store.get(stick_key(home, call.session))
    if not target or target == home then return end
    call.vars[self.home_name] = home
    return route { target = target, strip = self.strip, why = "this conversation was answered there before" }
  end,

  on_done = function(self, call, outcome)
    if not outcome.ok or not call.session or #call.ledger == 0 then return end
    local home, served = home_of(self, call), call.ledger[#call.ledger].target
    if served ~= home then
      store.set(stick_key(home, call.session), served, self.stick)
    elseif call.vars[self.home_name] then
      store.remove(stick_key(home, call.session))
    end
  end,

  on_error = function(self, call, err)
    local failed = err.category
    if self.ends[failed] then return end
    local home, provider, model = home_of(self, call)
    local targets, key
    local own, sorted = self.categories[failed], self.sorted
    if own then
      targets, key = list_for(own, sorted.categories[failed], home, model)
    end
    if not targets then
      targets, key = list_for(self.models, sorted.models, home, model)
    end
    if not targets then return end
    local target = next_target(self, call, targets, home, provider)
    if target then
      return fallback {
        target = target, strip = self.strip, why = failed .. " at " .. call.target.name .. "; next for " .. key,
      }
    end
  end,
}
