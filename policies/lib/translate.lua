--- What the translations between dialects share. See README.md, "Across dialects".
--
-- A value of a body may be a kept one: a long text or a part that is not looked into. json.kind() tells what it is,
-- `..` joins texts, and writing it writes the bytes that came. So: no type(v) == "string" for what a client sent.

local translate = {}

--- Collects what cannot be translated, in the order in which it was met, each once.
function translate.refusals()
  local list, seen = {}, {}
  return list, function(what)
    if not seen[what] and #list < 12 then
      seen[what] = true
      list[#list + 1] = what
    end
  end
end

--- Is it a text that says something?
function translate.says(value)
  return value ~= nil and value ~= "" and json.kind(value) == "string"
end

function translate.is_object(value)
  return type(value) == "table" and json.kind(value) == "object"
end

--- A list of the language, also an empty one: `{}` of a client is an object.
function translate.is_list(value)
  return type(value) == "table" and json.kind(value) == "array"
end

--- A short text for a refusal: names of types and fields that came from outside.
function translate.name(value)
  if type(value) ~= "string" then return "?" end
  return (value:sub(1, 40):gsub("[^%w_%-./]", "?"))
end

--- All members of `body` must be in `known`, where false means: left out, because nothing that the client sees depends
--- on it. Others are refused, as what is new to us may matter.
function translate.check_fields(body, known, refuse, where)
  for name in pairs(body) do
    if known[name] == nil then refuse((where or "") .. translate.name(name)) end
  end
end

--- Joins texts; nil when there are none. A long one makes the whole a kept one.
function translate.join(texts, separator)
  local all
  for _, text in ipairs(texts) do
    if all == nil then
      all = text
    else
      all = all .. (separator or "") .. text
    end
  end
  return all
end

--- "data:image/png;base64,AAAA" as media type and data; nil when it is another URL.
function translate.data_url(url)
  local head = type(url) == "string" and url:sub(1, 200) or url:head(200)
  local media, parameters, place = head:match("^data:([%w%-+./]+)([^,]*);base64,()")
  if not media or #parameters > 100 then return end
  if type(url) == "string" then return media, url:sub(place) end
  return media, url:from(place)
end

--- Tool calls are told apart by ids; Anthropic takes letters, digits, - and _ only. The same always becomes the same.
function translate.tool_id(id)
  if type(id) ~= "string" or id == "" then return end
  return (id:gsub("[^%w_%-]", "_"))
end

return translate
