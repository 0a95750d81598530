local answer = require "lib.answer"

-- An answer as `classify` gets it; `object` is what its JSON holds, nil when it is none.
local function made(body, object, status)
  return { status = status or 500, body = body, json = function() return object end }
end

test("read: an HTML page is known by its title", function(t)
  local page = "\n<!DOCTYPE html><HTML><head><Title class=x>\n  502  Bad\tGateway \n</title></head>"
  t:eq(answer.read(made(page)).message, "an HTML page: 502 Bad Gateway")
  t:eq(answer.read(made("<html><title></title>")).message, "an HTML page")
  t:eq(answer.read(made("<html><title>never ends")).message, "an HTML page")
  t:eq(answer.read(made("<html><title")).message, "an HTML page")
end)

test("read: a short text is the message, a long one is not", function(t)
  t:eq(answer.read(made("upstream connect error\nmore")).message, "upstream connect error")
  t:eq(answer.read(made(("x"):rep(301))).message, nil)
  t:eq(answer.read(made("")).message, nil)
  t:eq(answer.read(made('{"error":{"mess')).message, "an answer that is not whole JSON")
end)

test("read: codes that are numbers come as texts", function(t)
  for _, case in ipairs { { 429, "429" }, { 429.0, "429" }, { -1000, "-1000" }, { "x", "x" }, { 1.5, "1.5" } } do
    t:eq(answer.read(made("{}", { error = { code = case[1] } })).code, case[2])
  end
  t:eq(answer.read(made("{}", { error = { code = json.null, type = json.null, message = json.null } })).code, nil)
  t:eq(answer.read(made("{}", { error = { code = { 1 }, message = true } })).message, nil)
end)

test("read: boxes in boxes end somewhere", function(t)
  local object = { message = "deep" }
  for _ = 1, 50 do object = { error = object } end
  t:eq(answer.read(made("{}", object)).message, nil)
end)

test("by_message: only looks at the beginning", function(t)
  t:eq(answer.by_message(("x"):rep(2000) .. "rate limit", 400), nil)
  t:eq(answer.by_message("Rate Limit reached", 400).category, "rate_limit")
end)

test("by_message: words that only sound like it are left alone", function(t)
  for _, message in ipairs {
    "the value of limit must be positive",
    "messages.0.content: field required",
    "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens",
    "tokens must be a list of strings",
    "quota is not a known field",
    "Unrecognized request argument: billing_address",
  } do
    t:eq(answer.by_message(message, 400), nil, message)
  end
end)

test("classify: nothing to add is nil", function(t)
  t:eq(answer.classify(made("", nil, 500), {}, {}), nil)
  t:eq(answer.classify(made("{}", {}, 429), {}, {}), nil)
end)
