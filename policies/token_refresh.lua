--- Renews a credential when the provider says that it no longer works, and tries again with the new one.
--
-- All the hard parts are the core's: one renewal for any number of calls and workers, none when another call's renewal
-- has already brought a newer token, the background renewal 60 s before a token expires, the cooldown after a renewal
-- that failed, one free attempt with the new token. Here is only when to ask for it, and whom to tell when it fails.
--
-- Providers without a credential (a plain secret, passthrough) have nothing to renew: the failure goes to the next
-- policy. Put this one before retry.

local function key_of(credential)
  return "credential/" .. credential
end

return policy {
  name = "token_refresh",
  doc = "renew an expired credential, then try again",

  params = {
    to = param { type = "sink", optional = true, doc = "where to tell that somebody has to log in again" },
  },

  when = { refresh_token = true, source = "provider" }, -- what the dialect says a new token would help against

  on_error = function(self, call, err)
    return renew { why = call.target.name .. " said " .. (err.code or err.category) }
  end,

  -- The core's own events; it also tells us about renewals in the background, which no call sees.
  on_event = function(self, event)
    local credential = event.fields.credential
    if not self.to or not credential then return end
    if event.name == "credential_failed" then
      notify {
        key = key_of(credential),
        to = self.to,
        text = ("credential %s could not be renewed: %s. Somebody may have to log in again and replace its refresh "
                .. "token; until then it is tried again when a call needs it")
                 :format(credential, event.fields.error or "no reason was given"),
      }
    elseif event.name == "credential_renewed" then
      notify {
        key = key_of(credential),
        to = self.to,
        resolve = true,
        text = ("credential %s was renewed again"):format(credential),
      }
    end
  end,
}
