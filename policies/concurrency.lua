--- At most so many at a time (a bulkhead), so that one slow target does not take everything with it, and a provider
--- that counts parallel requests has no reason to refuse.
--
-- By target, provider or model an attempt holds its place until it has ended; by client or session the whole call does,
-- its waits between attempts included. Others wait in line, first come first served over all workers, at most
-- `max_wait` and behind at most `max_waiting`; whoever is refused goes on to fallback_model, and the client gets 503
-- (429 by client or session) with Retry-After when nobody takes the call.

local limits = require "lib.limits"

local function place(self, call)
  local key = limits.key(self.by, call)
  if not key then return end
  return hold {
    key = key,
    slots = self.slots,
    max_wait = self.max_wait, max_waiting = self.max_waiting,
    category = self.category,
    code = "concurrency",
    message = ("%s has %d calls under way, and takes no more"):format(key, self.slots),
    after = self.retry_after,
    why = "a place at " .. key,
  }
end

return policy {
  name = "concurrency",
  doc = "at most so many at a time",

  params = {
    slots       = param { 16, min = 1, max = 65535, doc = "at a time" },
    by          = param { "target", values = limits.BY, doc = "what has places of its own" },
    max_wait    = param { 10.0, min = 0, max = 3600, unit = "s", doc = "longest wait for a place; 0: none" },
    max_waiting = param { 100, min = 0, max = 65535, doc = "others in line, at most" },
    retry_after = param { 1.0, min = 0, max = 3600, unit = "s",
                          doc = "what who is refused is told: nobody knows when a place will be free" },
  },

  check = function(self)
    self.of_call = self.by == "client" or self.by == "session"
    self.category = self.of_call and "rate_limit" or "overloaded"
  end,

  on_request = function(self, call)
    if self.of_call then return place(self, call) end
  end,

  on_attempt = function(self, call)
    if not self.of_call then return place(self, call) end
  end,
}
