--- A job that finds its work done is done.

return policy {
  name = "done_before",

  when = { category = "conflict" },

  on_error = function(_, _, err)
    return respond { status = 200, body = "done before", why = "done before: " .. err.code }
  end,
}
