--- Reads generation requests of OpenAI's and Anthropic's APIs: which are some, and where what stands in them.

local request = {}

-- What a path ends in, and what such a body is.
local KINDS = {
  { "/chat/completions", "chat" },
  { "/messages/count_tokens", "count" },
  { "/messages", "messages" },
  { "/responses", "responses" },
  { "/embeddings", "embeddings" },
  { "/completions", "completions" },
}

--- "chat", "messages", "count", "responses", "embeddings" or "completions" for a POST to such a path, else nil.
function request.kind(call)
  if call.method ~= "POST" then return nil end
  local path = call.path:match("^(.*[^/])") or "" -- "/+$" would take a time that grows with the square of the slashes
  for _, row in ipairs(KINDS) do
    if path:sub(-#row[1]) == row[1] then return row[2] end
  end
end

--- The body with texts longer than `cut` bytes cut, or nil, why, and whether it is just too much to be looked at:
--- then the provider may well take it.
function request.read(call, cut)
  local coding = call:header("content-encoding")
  if coding and coding:lower() ~= "identity" then return nil, "it is encoded", true end
  local body, err = call:json { cut = cut }
  if body == nil then
    local why = err.message
    local too_long = why:find("longer", 1, true) or why:find("memory", 1, true) or why:find("not kept", 1, true)
    return nil, why, too_long ~= nil
  end
  return body
end

--- The length of a text that call:json { cut = } may have cut.
function request.length(text)
  local cut = #text >= 256 and text:match("%.%.%.%[(%d+) bytes%]$")
  return cut and tonumber(cut) or #text
end

--- Is it a list? Empty lists that came out of JSON are marked as such.
function request.is_list(value)
  return type(value) == "table" and (#value > 0 or getmetatable(value) ~= nil)
end

--- Calls `visit(value, path)` for all that stands at a path such as "messages.*.content.*.image_url.url", the path
--- written as in JavaScript: messages[3].content[0].image_url.url. At most `most` values are looked at: how many are
--- left of these, or nil when there are more.
function request.each(body, path, visit, most)
  local steps, left = {}, most
  for step in path:gmatch("[^.]+") do steps[#steps + 1] = step end
  local function walk(value, i, where)
    left = left - 1
    if left < 0 then return end
    local step = steps[i]
    if not step then
      visit(value, where)
    elseif type(value) == "table" then
      if step == "*" then
        for j, element in ipairs(value) do
          walk(element, i + 1, ("%s[%d]"):format(where, j - 1))
          if left < 0 then return end
        end
      elseif value[step] ~= nil then
        walk(value[step], i + 1, where == "" and step or where .. "." .. step)
      end
    end
  end
  walk(body, 1, "")
  return left >= 0 and left or nil
end

return request
