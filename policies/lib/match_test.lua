local match = require "lib.match"

test("glob: a star is any run of characters, also none", function(t)
  for _, case in ipairs {
    { "", "" }, { "*", "" }, { "*", "gpt" }, { "gpt", "gpt" }, { "gpt-*", "gpt-" }, { "gpt-*", "gpt-4o" },
    { "*-8k", "moonshot-v1-8k" }, { "a*b*c", "abc" }, { "a*b*c", "a1b2b3c" }, { "**", "x" }, { "*a*", "bab" },
    { "p/*", "p/m/n" },
  } do
    t:ok(match.glob(case[1], case[2]), case[1] .. " fits " .. case[2])
  end
end)

test("glob: everything else stands for itself", function(t)
  for _, case in ipairs {
    { "", "a" }, { "gpt", "gpt-4" }, { "gpt-*", "gpt" }, { "*-8k", "moonshot-v1-32k" }, { "a*b*c", "acb" },
    { "gpt.4", "gpt-4" }, { "%a", "x" }, { "[a]", "a" }, { "?", "a" }, { "GPT", "gpt" },
  } do
    t:ok(not match.glob(case[1], case[2]), case[1] .. " does not fit " .. case[2])
  end
end)

test("glob: many stars stay cheap", function(t)
  t:ok(not match.glob(("a*"):rep(50) .. "b", ("a"):rep(200)))
end)

test("best: exact before glob, longer before shorter", function(t)
  local map = { ["*"] = 1, ["gpt-*"] = 2, ["gpt-4*"] = 3, ["gpt-4"] = 4, ["p/gpt-4o"] = 5 }
  t:eq(match.best(map, { "o1" }), 1)
  t:eq(match.best(map, { "gpt-3" }), 2)
  t:eq(match.best(map, { "gpt-4o" }), 3)
  t:eq(match.best(map, { "gpt-4" }), 4)
  t:eq(match.best(map, { "gpt-4o", "p/gpt-4o" }), 5)
  t:eq(match.best({ ["*gpt-4"] = 1, ["gpt-4"] = 2 }, { "gpt-4" }), 2)
  t:eq(match.best({ ["gpt-*"] = 1 }, { "o1" }), nil)
  t:eq(match.best({}, { "o1" }), nil)
end)

test("best: gives the key, too, and of equals always the same", function(t)
  local _, key = match.best({ ["a*c"] = 1, ["ab*"] = 2 }, { "abc" })
  t:eq(key, "a*c")
end)

test("first: says of the sorted entries what best says of the map", function(t)
  local maps = {
    { ["*"] = 1, ["gpt-*"] = 2, ["gpt-4*"] = 3, ["gpt-4"] = 4, ["p/gpt-4o"] = 5 },
    { ["a*c"] = 1, ["ab*"] = 2, ["*c"] = 3, ["**"] = 4 },
    { ["*gpt-4"] = 1, ["gpt-4"] = 2, [""] = 3 },
    { ["gpt-*"] = 1 },
    {},
  }
  for i, map in ipairs(maps) do
    for _, text in ipairs { "o1", "gpt-3", "gpt-4", "gpt-4o", "gpt-", "gpt", "abc", "abcd", "ac", "c", "" } do
      local value, key = match.best(map, { "p/" .. text, text })
      local same_value, same_key = match.first(match.sort(map), "p/" .. text, text)
      t:eq(same_value, value, i .. ": " .. text)
      t:eq(same_key, key, i .. ": " .. text)
    end
  end
end)
