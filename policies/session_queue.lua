--- One call of a conversation at a time, in the order in which they came; other conversations go on beside it.
--
-- For providers that write one stream of a conversation at a time (KIMI answers a second one with -2005), and for
-- clients whose turns must not overtake each other. A call holds the conversation from its first attempt to its end,
-- retries and fallbacks included. Calls without a conversation pass. A client that leaves leaves the line; a
-- conversation that nobody uses is forgotten.
--
-- When the provider says "conflict" all the same (somebody else uses the conversation), the call tries again without
-- giving up its turn. So put this policy before retry.

local keys = require "lib.session_keys"
local limits = require "lib.limits"

local function conversation(self, call)
  if self.header then return call:header(self.header) end
  if self.field then return call:field(self.field) end
  return keys[self.key](call)
end

return policy {
  name = "session_queue",
  doc = "one call of a conversation at a time, in order",

  params = {
    header       = param { type = "string", optional = true, min = 1, max = 100,
                           doc = "header that names the conversation" },
    field        = param { type = "string", optional = true, min = 1, max = 200,
                           doc = "field of the body that names it, as \"metadata.conversation_id\"" },
    key          = param { "session", doc = "otherwise a function of lib/session_keys.lua: "
                           .. "session, user, conversation" },
    max_wait     = param { 60.0, min = 0, max = 3600, unit = "s", doc = "longest wait for the turn" },
    max_waiting  = param { 16, min = 0, max = 65535, doc = "calls in line of one conversation, at most" },
    conflicts    = param { 5, min = 0, max = 15, doc = "how often a conflict is tried again" },
    pause        = param { 0.5, min = 0, max = 60, unit = "s", doc = "wait after a conflict, doubled with each" },
  },

  check = function(self)
    if self.header and self.field then return "give header or field, not both" end
    if type(keys[self.key]) ~= "function" then
      return ("key: there is no function %q in lib/session_keys.lua"):format(self.key)
    end
  end,

  when = { category = { "conflict" } },

  on_request = function(self, call)
    local name = conversation(self, call)
    if name ~= nil then name = tostring(name) end
    local key = limits.session(call, name)
    if not key then return end
    return hold {
      key = key,
      slots = 1,
      max_wait = self.max_wait, max_waiting = self.max_waiting,
      code = "session_busy",
      message = "another call of this conversation is under way",
      after = 1,
      why = "the conversation's turn",
    }
  end,

  on_error = function(self, call, err)
    local n = call.target.attempts
    if err.source == "parry" or n > self.conflicts then return end
    return retry { after = self.pause * 2.0 ^ (n - 1), why = "conflict " .. n .. " in the conversation" }
  end,
}
