-- Writes the annotations of the policy API for the Lua language server (LuaLS), from the tags in the comments beside
-- the C functions.
--
--   lua5.4 meta.lua OUTPUT SOURCE...     writes the file
--   lua5.4 meta.lua --check SOURCE...    says which function or field that scripts can reach has no tags; exit code 1
--
-- A comment of a C file counts when it holds a line "---@...". From the first such line on, by their look:
--   ---@...                        a tag, as LuaLS has them; three spaces set off the words about a @return
--   function store.get(key) end    what the tags above are about; `json = {}`: the same for a table
--   lines further to the right     go on with the line above
--   other lines                    words about the function
-- Words in the same paragraph before the first tag count, too.

local SKIPPED = { -- arrays of luaL_Reg that hold nothing of ours: Lua's own functions, metamethods, an empty one
  ["lib_base.c ours"] = true, ["lib_string.c ours"] = true, ["lib_table.c functions"] = true,
  ["declare_object.c methods"] = true, ["lib_test_call.c none"] = true,
}

-- How scripts write the functions of the others.
local PREFIXES = {
  ["declare.c init_functions"] = "", ["declare.c functions"] = "",
  ["lib_health.c functions"] = "health.", ["lib_host.c functions"] = "host.",
  ["lib_http.c functions"] = "http.", ["lib_json.c functions"] = "json.",
  ["lib_log.c functions"] = "log.", ["lib_misc.c queue"] = "queue.", ["lib_keys.c keys"] = "keys.",
  ["lib_store.c functions"] = "store.", ["lib_store.c window_methods"] = "window:",
  ["lib_json_keep.c functions"] = "json.", ["lib_json_keep.c methods"] = "kept:",
  ["lib_store.c breaker_methods"] = "breaker:", ["lib_test.c methods"] = "t:",
  ["lib_test_call.c pry_test_calling"] = "t:", ["lib_test_check.c pry_test_checks"] = "t:",
}

local LUAS_OWN = { string = true, table = true, math = true, utf8 = true }

local HEAD = [[
---@meta
-- What policies can use, for the Lua language server. Written from parry's sources; the guide is policies/README.md.
]]

local function read(path)
  local file = assert(io.open(path, "r"))
  local text = file:read("a")
  file:close()
  return text
end

-- ---- tags ----------------------------------------------------------------------------------------------------

-- The lines of a comment without their stars.
local function comment_lines(comment)
  local lines = {}
  for line in (comment .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = line:gsub("^%s*/?%*+ ?", ""):gsub("%s+$", "")
  end
  return lines
end

local function is_code(text)
  return text:find("^function [%w_.:]+%(.*%) end$") or text:find("^[%a_][%w_]* = {}$") or text:find("^local ")
end

-- Words right above the first tag: its paragraph.
local function words_before(lines, first)
  local words = {}
  for i = first - 1, 1, -1 do
    if lines[i] == "" or lines[i]:find("^%-%-%-") then break end
    table.insert(words, 1, "---" .. lines[i])
  end
  return words
end

local function add_tag(out, text)
  if text:find("^%-%-%-@class") or text:find("^%-%-%-@alias") then
    out[#out + 1] = ""
  end
  out[#out + 1] = text
end

-- Columns are for readers of C; after a type, LuaLS takes words for a name unless a # sets them off.
local function plain_spaces(line)
  return (line:find("^%-%-%-@return") and line:gsub("   +", " # ", 1) or line):gsub("   *", " ")
end

-- A class that is no table of its own still needs a name that its methods hang on.
local function finish_class(out)
  for i = #out, 1, -1 do
    if out[i] == "" or is_code(out[i]) then return end
    local class = out[i]:match("^%-%-%-@class ([%w_]+)")
    if class then
      out[#out + 1] = ("local %s = {}"):format(class)
      return
    end
  end
end

local function add_comment(out, comment)
  local lines = comment_lines(comment)
  local first
  for i, line in ipairs(lines) do
    if line:find("^%s*%-%-%-@") then first = i break end
  end
  if not first then return end
  local indent = #lines[first]:match("^%s*")
  out[#out + 1] = ""
  table.move(words_before(lines, first), 1, #lines, #out + 1, out)
  for i = first, #lines do
    local space, text = lines[i]:match("^(%s*)(.-)$")
    if text == "" then
      if not is_code(out[#out]) then break end -- the tags have ended; what follows is for readers of C
    elseif #space >= indent + 4 and out[#out] ~= "" then
      out[#out] = out[#out] .. " " .. text
    elseif text:find("^%-%-%-@") then
      if not text:find("^%-%-%-@field") then finish_class(out) end
      if is_code(out[#out]) then out[#out + 1] = "" end
      add_tag(out, text)
    elseif is_code(text) then
      out[#out + 1] = text
    elseif is_code(out[#out]) then
      break
    else
      out[#out + 1] = "---" .. text
    end
  end
  finish_class(out)
end

local function annotations(sources)
  local out = { HEAD }
  for _, source in ipairs(sources) do
    for comment in source.text:gmatch("/%*(.-)%*/") do add_comment(out, comment) end
  end
  for i = 2, #out do out[i] = plain_spaces(out[i]) end
  return (table.concat(out, "\n"):gsub("\n\n\n+", "\n\n")) .. "\n"
end

-- ---- what scripts can reach ------------------------------------------------------------------------------------

local function add_tables(names, source, complain)
  for array, body in source.text:gmatch("const luaL_Reg ([%w_]+)%[%] = (%b{});") do
    local key = source.name .. " " .. array
    local prefix = PREFIXES[key]
    if not prefix and not SKIPPED[key] then
      complain(("%s: how do scripts write the functions of %s? meta.lua must know"):format(source.name, array))
    end
    for name in body:gmatch('{"([%w_]+)", *[%w_]+}') do
      if prefix then names[#names + 1] = prefix .. name end
    end
  end
end

local function reachable(sources, complain)
  local names = { "test" } -- test_host.c sets it for one file only
  for _, source in ipairs(sources) do
    add_tables(names, source, complain)
    for name in source.text:gmatch('pry_sandbox_set_global%(L, "([%w_]+)"%)') do
      if not LUAS_OWN[name] then names[#names + 1] = name end
    end
    for name in source.text:gmatch('set_head%(L, table, [%w_]+, "([%w_]+)"%)') do names[#names + 1] = name end
    for name in source.text:gmatch('X%(PRY_VERDICT_[%u_]+, "([%w_]+)"') do names[#names + 1] = name end
  end
  return names
end

-- Fields of the views (lib_view.h): #define CALL_FIELDS(X) X(attempt) ... are fields of the class `call`.
local function fields(sources, complain_field)
  for _, source in ipairs(sources) do
    local text = source.text:gsub("\\\n", " ")
    for macro, body in text:gmatch("#define (%u+)_FIELDS%(X%)([^\n]*)") do
      if source.name:find("^lib_") then
        for name in body:gmatch("X%(([%w_]+)%)") do complain_field(macro:lower(), name) end
      end
    end
  end
end

-- The lines of a class: its tags, and the functions that hang on it.
local function class_has(text, class, name)
  if text:find(("function %s:%s("):format(class, name), 1, true) then return true end
  local body = text:match("%-%-%-@class " .. class .. "\n(.-)\n[^-]")
  return body ~= nil and (body .. "\n"):find("---@field " .. name .. " ", 1, true) ~= nil
end

local function is_documented(text, name)
  local class, short = name:match("^([%w_]+)[.:]([%w_]+)$")
  return text:find("function " .. name .. "(", 1, true) ~= nil or text:find("\n" .. name .. " = {}", 1, true) ~= nil
    or (class ~= nil and class_has(text, class, short))
end

local function check(sources)
  local text, complaints = annotations(sources), {}
  local function complain(what) complaints[#complaints + 1] = what end
  local names = reachable(sources, complain)
  for _, name in ipairs(names) do
    if not is_documented(text, name) then complain(name .. " has no tags beside its C function") end
  end
  fields(sources, function(class, name)
    if not class_has(text, class, name) then complain(("the class %s has no tag of %s"):format(class, name)) end
  end)
  if not load(text, "=annotations") then complain("the annotations are no Lua: " .. select(2, load(text))) end
  if #names < 50 then complain("only " .. #names .. " functions: meta.lua cannot read the sources any more") end
  for _, complaint in ipairs(complaints) do io.stderr:write("meta: ", complaint, "\n") end
  print(("%d functions, %d without tags"):format(#names, #complaints))
  return #complaints == 0
end

local sources = {}
for i = 2, #arg do sources[#sources + 1] = { name = arg[i]:match("[^/]+$"), text = read(arg[i]) } end
if arg[1] == "--check" then os.exit(check(sources)) end
local file = assert(io.open(arg[1], "w"))
assert(file:write(annotations(sources)))
assert(file:close())
