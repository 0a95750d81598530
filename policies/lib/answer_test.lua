local answer = require "lib.answer"

-- An answer as `classify` gets it, but for what C reads out of a body: that is tested there.
local function made(said, status, provider)
  local a = { status = status or 500, category = "server", provider = provider, body = "", json = function() end }
  a.error = function() return said end
  a.header = function() end
  a.mentions = function(_, text, phrases, from)
    for i = from or 1, #phrases do
      if text:lower():find(phrases[i], 1, true) then return i end
    end
  end
  return a
end

local function by_words(message, status)
  local row = answer.by_words(made({}, status), message)
  return row and row.category
end

test("read: an HTML page is known by its title", function(t)
  t:eq(answer.read(made { html = true, message = "502 Bad Gateway" }).message, "an HTML page: 502 Bad Gateway")
  t:eq(answer.read(made { html = true }).message, "an HTML page")
end)

test("by_words: words that only sound like it are left alone", function(t)
  t:eq(by_words("Rate Limit reached", 400), "rate_limit")
  for _, message in ipairs {
    "the value of limit must be positive",
    "messages.0.content: field required",
    "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens",
    "tokens must be a list of strings",
    "quota is not a known field",
    "billing_address must be a text",
  } do
    t:eq(by_words(message, 400), nil, message)
  end
end)

test("by_words: statuses that say it better are left alone", function(t)
  t:eq(by_words("mind the rate limit", 401), nil)
  t:eq(by_words("overloaded", 404), nil)
  t:eq(by_words("maximum context length", 429), nil)
  t:eq(by_words("a content policy, and too busy", 503), "overloaded")
end)

test("classify: nothing to add is nil", function(t)
  t:eq(answer.classify(made({}), {}, {}), nil)
  t:eq(answer.classify(made({ cut = nil }, 429), {}, {}), nil)
end)

test("classify: a word that says more wins over a vague one", function(t)
  local codes = { server_error = answer.VAGUE, boom = "overloaded" }
  t:eq(answer.classify(made { "server_error", "boom", code = "server_error" }, codes, {}).category, "overloaded")
  t:eq(answer.classify(made { "server_error", code = "server_error" }, codes, {}).category, nil)
  t:eq(answer.classify(made({ "server_error", message = "we are at capacity" }), codes, {}).category, "overloaded")
  t:eq(answer.classify(made({ "boom.why", code = "boom.Why" }, 400), codes, {}).category, "overloaded")
end)

test("classify: what waits for hours is not waited for", function(t)
  local codes = { limit = "rate_limit" }
  local function of(said, retry_after)
    local a = made(said, 429)
    a.category, a.retry_after = "rate_limit", retry_after
    return answer.classify(a, codes, {})
  end
  t:eq(of { "limit", message = "20 per minute" }.retryable, nil)
  t:eq(of { "limit", message = "200 per day" }.retryable, false)
  t:eq(of { "limit", message = "200 per day, try again in 7m12s", wait = 432 }.retryable, nil)
  t:eq(of { "limit", message = "200 per day, try again in 7m12s", wait = 432 }.retry_after, 432)
  t:eq(of { "limit", message = "wait", wait = 7200 }.retryable, false)
  t:eq(of({ "limit", message = "200 per day" }, 30).retryable, nil)
  t:eq(of({ "limit", message = "try again in 5s", wait = 5 }, 30).retry_after, nil) -- the header said it
  t:eq(of({ "limit", message = "x", quota = "RequestsPerDay " }, 30).retryable, false)
end)
