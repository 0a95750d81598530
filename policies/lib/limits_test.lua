local limits = require "lib.limits"

local NOW = 1700000000 -- 2023-11-14T22:13:20Z

test("times as providers write them", function(t)
  t:eq(limits.seconds("1s", NOW), 1)
  t:eq(limits.seconds("6m0s", NOW), 360)
  t:near(limits.seconds("20ms", NOW), 0.02, 1e-9)
  t:eq(limits.seconds("1h2m3.5s", NOW), 3723.5)
  t:eq(limits.seconds("12.5", NOW), 12.5)
  t:eq(limits.seconds("1700000007", NOW), 7)
  t:eq(limits.seconds("1700000007000", NOW), 7)
  t:eq(limits.seconds("2023-11-14T22:13:50Z", NOW), 30)
  t:eq(limits.seconds("2023-11-14T23:14:20+01:00", NOW), 60)
  t:eq(limits.seconds("2024-03-01T00:00:00Z", NOW), 1709251200 - NOW)
  t:eq(limits.seconds("2020-01-01T00:00:00Z", NOW), 0)
end)

test("what is no time is nothing", function(t)
  for _, text in ipairs { "", "soon", "5 s", "-3", "1x", "1s2", "nan", "12:00", "s" } do
    t:eq(limits.seconds(text, NOW), nil, text)
  end
end)

test("a key fits into a queue, and both of its ends count", function(t)
  local long = ("a"):rep(300)
  t:eq(limits.fit("openai/gpt-4o"), "openai/gpt-4o")
  t:ok(#limits.fit(long) < 200)
  t:ne(limits.fit(long .. "1"), limits.fit(long .. "2"))
  t:ne(limits.fit("1" .. long), limits.fit("2" .. long))
end)

test("groups are checked", function(t)
  t:ok(limits.groups { a = { "p/*" }, b = { "q/m" } })
  for text, groups in pairs {
    ["must be a target or a glob"] = { a = { "p" } },
    ["is in \"a\" and in \"b\""] = { a = { "p/*" }, b = { "p/*" } },
    ["must be {"] = { a = "p/*" },
    ["must be a table"] = 7,
  } do
    local sorted, wrong = limits.groups(groups)
    t:eq(sorted, nil)
    t:match(wrong, text)
  end
end)
