--- Puts aside what nobody else knew how to go on with: accepted (202), to be looked at by people.
--
-- A job that is wrong in itself stays a failure: nobody could do it tomorrow, either.

return policy {
  name = "park",

  when = { last = true },

  on_error = function(_, _, err)
    if err.category == "invalid_request" then return nil end
    return respond { status = 202, body = { parked = err.category, code = err.code }, why = "parked: " .. err.category }
  end,
}
