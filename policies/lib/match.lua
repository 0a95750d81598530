--- Globs, as in routes and by_model: `*` stands for any run of characters, everything else for itself.

local match = {}

--- Does all of `text` fit `pattern`? Work is at most length x length; no pattern characters but `*`.
function match.glob(pattern, text)
  local p, t, star, mark = 1, 1, nil, nil
  while t <= #text do
    local c = pattern:sub(p, p)
    if c == "*" then
      star, mark = p, t
      p = p + 1
    elseif c ~= "" and c == text:sub(t, t) then
      p, t = p + 1, t + 1
    elseif star then
      mark = mark + 1
      p, t = star + 1, mark
    else
      return false
    end
  end
  return pattern:find("^%**$", p) ~= nil
end

--- The more of a pattern is literal, the more specific it is; without a `*` it beats any of the same length.
function match.rank(pattern)
  local _, stars = pattern:gsub("%*", "")
  local literal = #pattern - stars
  return literal * 2 + (stars == 0 and 1 or 0)
end

--- The value of `map` whose key fits one of `texts` best, and that key; nil when none does. Of two keys that are as
--- specific as each other the one that comes first in the alphabet counts, so that the answer is always the same.
function match.best(map, texts)
  local best, rank = nil, -1
  for pattern in pairs(map) do
    local r = match.rank(pattern)
    if r > rank then
      for _, text in ipairs(texts) do
        if match.glob(pattern, text) then
          best, rank = pattern, r
          break
        end
      end
    end
  end
  if best then return map[best], best end
end

--- The entries of `map` in the order in which `match.first` is to try them: work for load, not for each error.
function match.sort(map)
  local sorted = {}
  for pattern, value in pairs(map) do
    local star = pattern:find("*", 1, true)
    sorted[#sorted + 1] = {
      pattern = pattern, value = value, rank = match.rank(pattern),
      literal = not star,
      prefix = star and star == #pattern and pattern:sub(1, -2) or nil,
    }
  end
  table.sort(sorted, function(a, b) return a.rank > b.rank end) -- stable: equal ones stay in the order of the alphabet
  return sorted
end

local function fits(entry, text)
  if entry.literal then return entry.pattern == text end
  local prefix = entry.prefix
  if prefix then return text:sub(1, #prefix) == prefix end
  return match.glob(entry.pattern, text)
end

--- What match.best(map, { a, b }) says, from match.sort(map).
function match.first(sorted, a, b)
  for _, entry in ipairs(sorted) do
    if fits(entry, a) or fits(entry, b) then return entry.value, entry.pattern end
  end
end

return match
