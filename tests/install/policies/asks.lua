--- Does what the host says: asks its function "now_what", and says what it answered.

return policy {
  name = "asks",
  on_error = function(self, call, err)
    if not host.has("now_what") then
      return respond { status = 418, body = { text = "nobody to ask" } }
    end
    local answer, problem = host.call("now_what", { code = err.code })
    if not answer then return fail { category = "server", why = problem.message } end
    return retry { after = answer.after, why = "the host said so" }
  end,

  on_event = function(self, event)
    log.info("event", { name = event.name })
  end,
}
