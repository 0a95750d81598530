-- Writes parry.h(3) from the comments of parry.h: lua5.4 manual.lua HEADER VERSION DATE > parry.h.3
--
-- The comment that opens the header is the description. A heading comment (---- name ----) begins a section; a comment
-- and the declarations below it, up to the next empty line, stand together. Only plain text is expected in comments;
-- lines indented deeper than the rest stay as they are.

local path, version, date = table.unpack(arg)
local file = assert(io.open(path, "r"))
local text = file:read("a")
file:close()

local escapes = { ["\\"] = "\\e", ["-"] = "\\-", ["'"] = "\\(aq", ["`"] = "\\(ga", ["^"] = "\\(ha", ["~"] = "\\(ti" }

local function line(words)
  words = words:gsub("[\\%-'`^~]", escapes)
  print((words:match("^[.']") and "\\&" or "") .. words)
end

local function code(lines, first)
  print((first and "" or ".PP\n") .. ".nf\n.ft CR")
  for _, one in ipairs(lines) do
    line(one)
  end
  print(".ft\n.fi")
end

-- The text of a comment without its frame, as lines.
local function comment_lines(comment)
  local lines = {}
  for one in (comment:gsub("^/%*", "  "):gsub("%*/%s*$", "") .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = one:gsub("^%s?%*", "", 1):gsub("^%s", "", 1):gsub("%s+$", "")
  end
  if lines[1] then
    lines[1] = lines[1]:gsub("^%s+", "")
  end
  return lines
end

local function prose(comment, first)
  local held, open = {}, not first
  local function flush()
    if #held > 0 then
      code(held)
      held, open = {}, true
    end
  end
  for _, one in ipairs(comment_lines(comment)) do
    if one:match("^%s%s") then
      held[#held + 1] = one
    elseif one == "" and #held > 0 then
      held[#held + 1] = ""
    elseif one == "" then
      open = true
    else
      while held[#held] == "" do
        held[#held] = nil
      end
      flush()
      if open then
        print(".PP")
        open = false
      end
      line(one)
    end
  end
  while held[#held] == "" do
    held[#held] = nil
  end
  flush()
end

local opening = assert(text:match("^(/%*.-%*/)"), "parry.h does not open with a comment")
local body = assert(text:match('extern "C" {\n#endif\n(.-)\n#ifdef __cplusplus'), "parry.h has no declarations")

print(".\\\" Written from parry.h by manual.lua.")
print((".TH PARRY.H 3 %s \"parry %s\" \"parry\""):format(date, version))
print(".SH NAME\nparry.h, libparry \\- policies decide what happens when a call goes wrong")
print(".SH SYNOPSIS\n.nf\n\\fB#include <parry.h>\\fR\n.fi\n.PP\ncc ... $(pkg\\-config \\-\\-cflags \\-\\-libs parry)")
print(".SH DESCRIPTION")
prose(opening:gsub("^/%*\n %* parry%.h: (%l)", function(first) return "/* " .. first:upper() end), true)

for block in (body .. "\n\n"):gmatch("(.-)\n\n+") do
  block = block:gsub("^\n+", "")
  local heading = block:match("^/%* %-%-%-%- (.-) %-+ %*/$")
  local rest = block
  if heading then
    print(".SH " .. heading:gsub("%-", "\\-"):upper())
  elseif not block:match("^#if") and not block:match("^%s*$") then
    local comment = block:match("^/%*.-%*/")
    if comment then
      rest = block:sub(#comment + 1):gsub("^\n", "")
    end
    local lines = {}
    for one in (rest:gsub("PARRY_API ", "") .. "\n"):gmatch("(.-)\n") do
      lines[#lines + 1] = one:gsub("%s+\\$", " \\")
    end
    local name = rest:match("^#define ([%w_]+)") or rest:match("^enum ([%w_]+)") or rest:match("^struct ([%w_]+) {")
      or rest:match("^enum {%s.-([%u_]+) =") or rest:match("^typedef .- %(%*([%w_]+)%)")
      or rest:match("^typedef .-([%w_]+);%s*$") or rest:match("([%w_]+)%(")
    print(".SS " .. assert(name, "no name in: " .. rest))
    code(lines, true)
    if comment then
      prose(comment)
    end
  end
end
print(".SH SEE ALSO\n.BR parry (1)")
