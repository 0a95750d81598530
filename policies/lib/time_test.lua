local time = require "lib.time"

test("times as people write them", function(t)
  t:eq(time.parse("1970-01-01"), 0)
  t:eq(time.parse("2026-01-01T00:00Z"), 1767225600)
  t:eq(time.parse("2024-02-29T23:59:59Z"), 1709251199)
  t:eq(time.parse("2000-03-01"), 951868800)
  for _, wrong in ipairs { "", "tomorrow", "2026-13-01", "2026-02-29", "2026-01-01T24:00Z", "2026-01-01T00:00",
      "2026-00-01",
                           "2026-01-01T00:00:61Z" } do
    t:eq(time.parse(wrong), nil, wrong)
  end
end)

test("times as JSON has them, there and back", function(t)
  t:eq(time.iso(0), "1970-01-01T00:00:00.000Z")
  t:eq(time.iso(1767225600.25), "2026-01-01T00:00:00.250Z")
  t:eq(time.iso(1709251199), "2024-02-29T23:59:59.000Z")
  for day = 0, 40000, 37 do
    t:eq(time.parse(time.iso(day * 86400):sub(1, 10)), day * 86400)
  end
end)
