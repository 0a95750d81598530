--- Times as people and JSON write them: ISO 8601 in UTC.

local time = {}

-- Days since 1970-01-01 of a date in the Gregorian calendar: years are counted from March, so that the leap day is
-- last.
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

--- Unix seconds of "2026-11-21T18:00Z", "2026-11-21T18:00:30Z" or "2026-11-21"; nil when it is no such time.
function time.parse(text)
  local year, month, day, rest = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$")
  if not year then return nil end
  local hour, minute, second = "0", "0", "0"
  if rest ~= "" then
    hour, minute, rest = rest:match("^T(%d%d):(%d%d)(.*)Z$")
    if not hour then return nil end
    if rest ~= "" then
      second = rest:match("^:(%d%d)$")
      if not second then return nil end
    end
  end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  local last = DAYS[month]
  if not last or day < 1 or day > (month == 2 and is_leap(year) and 29 or last) or hour > 23 or minute > 59
    or second > 59 then
    return nil
  end
  return days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
end

--- "2026-11-21T18:00:30.250Z" of Unix seconds.
function time.iso(seconds)
  local milliseconds = math.floor(seconds * 1000 + 0.5)
  local days, rest = milliseconds // 86400000, milliseconds % 86400000
  local z = days + 719468 -- since 0000-03-01
  local era = z // 146097
  local doe = z % 146097
  local yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
  local doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
  local mp = (5 * doy + 2) // 153
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return ("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ"):format(year, month, doy - (153 * mp + 2) // 5 + 1,
    rest // 3600000, rest // 60000 % 60, rest // 1000 % 60, rest % 1000)
end

return time
