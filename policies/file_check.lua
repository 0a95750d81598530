--- Looks at the files that a request names by URL, before a provider fetches them: are they there, of a type that
--- can be read, not too large, and on the public internet?
--
-- Each URL is asked with HEAD, or with GET for one byte where HEAD is not answered; nothing of a file is read. A
-- URL that leads into a network that is not public is never connected to, whatever name or redirect it hides behind
-- (http.probe). What was found is remembered for a while, under a digest of the URL.

local errors = require "lib.errors"
local request = require "lib.request"

local CUT = 8192     -- bytes of a text that are read: no URL is longer
local MOST = 60      -- places of files in a request
local STEPS = 5000   -- values that `paths` leads to: more cannot be looked at within a handler's budget
local GET_TOO = { [400] = true, [403] = true, [405] = true, [501] = true } -- answers to HEAD that GET may do better
local FAILED = 30    -- seconds for which a failure to reach a file is remembered, at most

local MEDIA = {
  pdf = "application/pdf", txt = "text/plain", doc = "application/msword",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  xls = "application/vnd.ms-excel",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  ppt = "application/vnd.ms-powerpoint",
  pptx = "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  md = "text/markdown", csv = "text/csv", html = "text/html", json = "application/json", rtf = "application/rtf",
  png = "image/png", jpeg = "image/jpeg", jpg = "image/jpeg", gif = "image/gif", webp = "image/webp",
}
-- What servers say when they do not know: then the name of the file counts.
local VAGUE = { [""] = true, ["application/octet-stream"] = true, ["binary/octet-stream"] = true,
                ["application/x-download"] = true, ["application/force-download"] = true }

-- Fields that name a file, wherever they stand, and of what kind it is: OpenAI's, Anthropic's and their relatives'.
local FIELDS = {
  image_url = "image", file_url = "file", document_url = "file", source = "either", video_url = "other",
  audio_url = "other",
}
local NAMES = { "image_url", "file_url", "document_url", "source", "video_url", "audio_url" }

-- Finding URLs ----------------------------------------------------------------------------------------------------

-- The different URLs, each with the fields that it stands in. Texts of Anthropic's `source` that are no URL are
-- its data.
local function collect(found, list)
  for _, row in ipairs(list) do
    local kind = FIELDS[row.name]
    local skipped = row.value:find("^[dD][aA][tT][aA]:") or (row.name == "source" and not row.path:find("%.url$"))
    if not skipped then
      local key = kind .. " " .. row.value
      local file = found.by_url[key]
      if not file then
        file = { url = row.value, kind = kind, fields = {} }
        found.by_url[key], found[#found + 1] = file, file
      end
      file.fields[#file.fields + 1] = row.path
    end
  end
  return found
end

-- What is named in the places of one's own, which are not found by their last name alone.
local function find_own(self, call, found)
  if #self.paths == 0 then return true end
  local body, why = request.read(call, CUT)
  if body == nil then return nil, why end
  local list, left = {}, STEPS
  for _, path in ipairs(self.paths) do
    left = request.each(body, path, function(value, where)
      if type(value) == "string" and #list <= MOST then
        list[#list + 1] = { name = "file_url", path = where, value = value }
      end
    end, left)
    if not left then return nil, "it has too many parts" end
  end
  found.more = found.more or #list > MOST
  collect(found, list)
  return true
end

-- The files, or nil and why the body cannot be searched.
local function find(self, call)
  local coding = call:header("content-encoding")
  if coding and coding:lower() ~= "identity" then return nil, "it is encoded" end
  local list, err = call:find(NAMES, MOST)
  if not list then return nil, err.message end
  local found = collect({ by_url = {} }, list)
  found.more = #list > MOST
  local fine, why = find_own(self, call, found)
  if not fine then return nil, why end
  return found
end

-- Looking at one --------------------------------------------------------------------------------------------------

-- What may be shown and kept of a URL: neither a query, which holds signatures, nor a user name.
local function shown(url)
  local text = url:gsub("[?#].*", ""):gsub("//[^/]*@", "//"):gsub("[%c ]", "?")
  return #text > 120 and text:sub(1, 120) .. "..." or text
end

local function wrong(code, message, lasting)
  return { code = code, message = message, lasting = lasting }
end

local function from_error(self, err)
  if err.category == "permission" then
    return wrong("file_not_public", "does not lead to a public web server", true)
  elseif err.category == "invalid_request" then
    return wrong("invalid_file_url", (err.message:gsub("^the url ", "")), true)
  elseif self.unreachable == "refuse" then
    return wrong("file_unreachable", err.category == "timeout" and "did not answer in time" or "could not be reached")
  end
end

-- "bytes 0-0/12345" of an answer to GET (RFC 9110 §14.4), or its length.
local function size_of(answer)
  local range = answer.headers["content-range"]
  local size = range and range:match("/(%d+)%s*$")
  if not size and answer.status ~= 206 then size = (answer.headers["content-length"] or ""):match("^%d+$") end
  return tonumber(size)
end

local function extension_of(answer, url)
  local name = (answer.headers["content-disposition"] or ""):match('filename="?([^";]+)')
  local path = url:gsub("[?#].*", "")
  return (name or path):match("%.(%w+)%s*$")
end

local function type_complaint(self, answer, url, kind)
  if kind == "other" then return nil end
  local media = (answer.headers["content-type"] or ""):match("^%s*([^;%s]*)"):lower()
  if VAGUE[media] then
    local extension = extension_of(answer, url)
    media = extension and MEDIA[extension:lower()] or "unknown"
  end
  local fits = kind ~= "image" and self.media[media] or kind ~= "file" and self.image_media[media]
  if fits then return nil end
  local names = kind == "file" and "" or table.concat(self.images, ", ")
  if kind ~= "image" then names = table.concat(self.types, ", ") .. (names ~= "" and ", " .. names or "") end
  return wrong("file_type_not_allowed", ("is %s, not one of %s"):format(media:sub(1, 80), names), true)
end

local function judge(self, answer, url, kind)
  if answer.status < 200 or answer.status > 299 then
    return wrong("file_unreachable", ("was answered with HTTP %d"):format(answer.status))
  end
  local size = size_of(answer)
  if size and size > self.max_size then
    return wrong("file_too_large", ("has %.0f bytes, more than %d"):format(size, self.max_size), true)
  elseif not size and self.unknown_size == "refuse" then
    return wrong("file_too_large", "does not say how large it is")
  end
  return type_complaint(self, answer, url, kind)
end

local function probe(self, url, method)
  return http.probe { url = url, method = method, redirects = self.redirects, timeout = self.timeout }
end

local function ask(self, url)
  local answer, err = probe(self, url, "HEAD")
  if answer and (GET_TOO[answer.status] or (answer.status == 200 and not size_of(answer))) then
    local other = probe(self, url, "GET")
    if other and other.status < 400 then answer = other end
  end
  return answer, err
end

-- nil, or what is wrong with the file: from the store, or by asking.
local function check_file(self, file)
  local url = file.url
  if not url:find("^[hH][tT][tT][pP][sS]?://") then
    return wrong("invalid_file_url", "must be an http or https URL")
  end
  if request.length(url) > #url or #url > CUT - 256 then
    return wrong("invalid_file_url", "is too long")
  end
  local key = digest(file.kind .. " " .. url)
  local known = store.get(key)
  if known then return known ~= "" and json.decode(known) or nil end
  local answer, err = ask(self, url)
  local complaint
  if answer then
    complaint = judge(self, answer, url, file.kind)
  else
    complaint = from_error(self, err)
  end
  local lasting = answer and not complaint or complaint and complaint.lasting
  local seconds = lasting and self.remember or math.min(self.remember, FAILED)
  if seconds > 0 then
    store.set(key, complaint and json.encode(complaint) or "", seconds)
  end
  return complaint
end

-- Telling ---------------------------------------------------------------------------------------------------------

local KIMI = { file_too_large = "-2004" } -- all others: -2003, an illegal URL

local function refuse_all(self, call, list)
  local all_too_large, first = true, list[1].code
  for _, row in ipairs(list) do all_too_large = all_too_large and row.code == "file_too_large" end
  local failure = errors.of_fields(list, {
    category = all_too_large and "payload_too_large" or "invalid_request",
    status = all_too_large and 413 or 400,
    code = errors.style_of(call, self.style) == "kimi" and (all_too_large and KIMI[first] or "-2003") or first,
  })
  return errors.respond(call, self.style, failure, ("%d wrong, the first %s: %s"):format(#list, list[1].field, first))
end

local function unsearched(self, call, why)
  if self.unsearchable == "pass" then return end
  local shape = why == "not JSON" and { code = "invalid_json" }
    or { category = "payload_too_large", status = 413, code = "request_too_large" }
  return errors.respond(call, self.style, errors.of_fields(
    { { field = "", message = "the body cannot be searched for files: " .. why, code = shape.code } }, shape),
    "body " .. why)
end

local function media_set(names)
  local set = {}
  for _, name in ipairs(names) do
    local media = name:find("/", 1, true) and name or MEDIA[name]
    if not media then return nil, name end
    set[media] = true
  end
  return set
end

return policy {
  name = "file_check",
  doc = "look at the files that a request names by URL before a provider fetches them",

  params = {
    types        = param { { "pdf", "txt", "doc", "docx" }, type = "list", of = "string",
                           doc = "files: extensions that are known here, or media types" },
    images       = param { { "png", "jpeg", "gif", "webp" }, type = "list", of = "string",
                           doc = "the same for images" },
    max_size     = param { 104857600, min = 1, doc = "bytes of a file" },
    max_urls     = param { 8, min = 1, max = 32,
                           doc = "different URLs in one request; they are asked one after the other" },
    timeout      = param { 3.0, min = 0.1, max = 10, unit = "s", doc = "for one URL; all of a request have 10 s" },
    redirects    = param { 3, min = 0, max = 3, doc = "that are followed, each checked like the first URL" },
    remember     = param { 300, min = 0, max = 86400, unit = "s",
                           doc = "for how long a finding counts; 0: not at all" },
    unreachable  = param { "refuse", values = { "refuse", "pass" }, doc = "a file that could not be asked for" },
    unknown_size = param { "pass", values = { "refuse", "pass" },
                           doc = "a file whose server does not say how large it is" },
    unsearchable = param { "refuse", values = { "refuse", "pass" },
                           doc = "a body that cannot be searched: too long, encoded, not JSON" },
    paths        = param { {}, type = "list", of = "string",
                           doc = "more places of URLs, as \"metadata.files.*.link\"" },
    style        = param { "client", values = { "client", "openai", "anthropic", "kimi", "house" },
                           doc = "shape of the answer, as of standard_errors" },
  },

  check = function(self)
    local unknown
    self.media, unknown = media_set(self.types)
    if not self.media then return ("types: %q is not known here; give its media type"):format(unknown) end
    self.image_media, unknown = media_set(self.images)
    if not self.image_media then return ("images: %q is not known here; give its media type"):format(unknown) end
  end,

  on_request = function(self, call)
    if not request.kind(call) then return end
    local found, why = find(self, call)
    if not found then return unsearched(self, call, why) end
    if #found == 0 then return end
    if #found > self.max_urls or found.more then
      return refuse_all(self, call, { { field = found[1].fields[1], code = "too_many_files",
        message = ("the request names %s files, more than %d"):format(
          found.more and ("more than %d"):format(MOST) or ("%d"):format(#found), self.max_urls) } })
    end
    local list = {}
    for _, file in ipairs(found) do
      local complaint = check_file(self, file)
      if complaint then
        for _, field in ipairs(file.fields) do
          list[#list + 1] = { field = field, code = complaint.code,
                              message = ("%s %s"):format(shown(file.url), complaint.message) }
        end
      end
    end
    if #list > 0 then return refuse_all(self, call, list) end
  end,
}
