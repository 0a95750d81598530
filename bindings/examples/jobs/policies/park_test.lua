test("what fails is parked, what is wrong fails", function(t)
  t:use("park", {})
  t:provider("db", { { category = "server", code = "EPIPE" }, { category = "invalid_request" }, host = true })
  local parked = t:call { target = "db/import" }
  t:eq(parked.status, 202)
  t:eq(parked.json.code, "EPIPE")
  t:eq(t:call({ target = "db/import" }).category, "invalid_request")
end)
