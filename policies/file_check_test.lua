local OK = { status = 200 }
local PDF = { status = 200, headers = { ["content-type"] = "application/pdf", ["content-length"] = 1000 } }
local URL = "https://files.example/a.pdf"

local function checked(t, more)
  local params = { types = { "pdf", "txt", "doc", "docx" }, images = { "png", "jpeg" }, max_size = 104857600,
      max_urls = 4,
                   timeout = 3, redirects = 3, remember = 300, unreachable = "refuse", unknown_size = "pass",
                   unsearchable = "refuse", paths = {}, style = "client" }
  for name, value in pairs(more or {}) do params[name] = value end
  t:use("file_check", params)
  t:provider { OK, OK, OK, OK }
end

local function ask(t, ...)
  local content = {}
  for _, url in ipairs { ... } do content[#content + 1] = { type = "input_file", file_url = url } end
  return t:call { path = "/v1/responses", body = { model = "m", input = { { role = "user", content = content } } } }
end

local function look(t, url)
  return t:call { path = "/v1/chat/completions", body = { model = "m", messages = {
    { role = "user", content = { { type = "image_url", image_url = { url = url } } } } } } }
end

local function refused(t, r, code, text)
  t:eq(r.upstream_calls, 0)
  t:eq(#r.faults, 0)
  t:ok(r.status == 400 or r.status == 413, r.status)
  t:eq(r.json.error.code, code)
  t:match(r.json.error.message, text)
end

test("a good file passes after one HEAD", function(t)
  checked(t)
  t:probe(URL, { PDF })
  local r = ask(t, URL)
  t:eq(r.status, 200, r.body)
  local asked = t:requests("probe")
  t:eq(#asked, 1)
  t:eq(asked[1].method, "HEAD")
  t:eq(asked[1].headers["authorization"], nil)
  t:eq(asked[1].headers["cookie"], nil)
end)

test("requests without files, and other paths, ask nothing", function(t)
  checked(t)
  t:eq(t:call({ model = "m" }).status, 200)
  t:eq(t:call({ method = "GET", path = "/v1/models" }).status, 200)
  t:eq(#t:requests("probe"), 0)
end)

test("too large: 413", function(t)
  checked(t)
  t:probe(URL, { { headers = { ["content-type"] = "application/pdf", ["content-length"] = 104857601 } } })
  local r = ask(t, URL)
  refused(t, r, "file_too_large", "has 104857601 bytes, more than 104857600")
  t:eq(r.status, 413)
  t:eq(r.json.error.param, "input[0].content[0].file_url")
end)

-- A length beyond what integers hold was a fault, and the file passed.
test("a server that claims an absurd length", function(t)
  checked(t)
  for i, length in ipairs { "99999999999999999999", "18446744073709551616", ("9"):rep(400) } do
    local url = ("https://files.example/%d.pdf"):format(i)
    t:probe(url, { { headers = { ["content-type"] = "application/pdf", ["content-length"] = length } } })
    refused(t, ask(t, url), "file_too_large", "has ")
  end
end)

test("a type that cannot be read", function(t)
  checked(t)
  t:probe(URL, { { headers = { ["content-type"] = "text/html; charset=utf-8", ["content-length"] = 5 } } })
  refused(t, ask(t, URL), "file_type_not_allowed", "is text/html, not one of pdf, txt, doc, docx")
end)

test("a server that does not know the type: the file's name counts", function(t)
  checked(t)
  local vague = { headers = { ["content-type"] = "application/octet-stream", ["content-length"] = 5 } }
  t:probe("https://files.example/b.DOCX?x=1", { vague })
  t:eq(ask(t, "https://files.example/b.DOCX?x=1").status, 200)
  t:probe("https://files.example/c.exe", { vague })
  refused(t, ask(t, "https://files.example/c.exe"), "file_type_not_allowed", "unknown")
  t:probe("https://files.example/download", { { headers = { ["content-type"] = "application/octet-stream",
    ["content-length"] = 5, ["content-disposition"] = 'attachment; filename="report.pdf"' } } })
  t:eq(ask(t, "https://files.example/download").status, 200)
end)

test("images have a list of their own", function(t)
  checked(t)
  t:probe("https://files.example/a.png", { { headers = { ["content-type"] = "image/png", ["content-length"] = 5 } } })
  t:eq(look(t, "https://files.example/a.png").status, 200)
  t:probe(URL, { PDF })
  local r = look(t, URL)
  refused(t, r, "file_type_not_allowed", "is application/pdf, not one of png, jpeg")
  t:eq(r.json.error.param, "messages[0].content[0].image_url.url")
end)

test("images within the request are not asked for", function(t)
  checked(t)
  t:eq(look(t, "data:image/png;base64," .. ("A"):rep(20000)).status, 200)
  t:eq(#t:requests("probe"), 0)
end)

test("what is no URL, or leads inside, is never asked for", function(t)
  checked(t)
  for _, url in ipairs { "file:///etc/passwd", "ftp://files.example/a.pdf", "gopher://x/", "//files.example/a.pdf",
                         "https://user:pass@files.example/a.pdf", "https://files.example\\@10.0.0.1/a.pdf",
                         "http://", "https:///a.pdf", "https://files.example:0/a.pdf" } do
    refused(t, ask(t, url), "invalid_file_url", "input%[0%]%.content%[0%]%.file_url")
  end
  for _, url in ipairs { "http://127.0.0.1/a.pdf", "http://10.1.2.3/a.pdf", "http://169.254.169.254/latest/meta-data",
                         "http://[::1]/a.pdf", "http://[::ffff:127.0.0.1]/a.pdf", "http://[fe80::1]/",
                             "http://0.0.0.0/",
                         "https://files.example:22/a.pdf", "http://192.168.0.1:8080/a.pdf", "http://[fd00::1]/x" } do
    refused(t, ask(t, url), "file_not_public", "does not lead to a public web server")
  end
  t:eq(#t:requests("probe"), 0)
end)

test("a name that leads inside is refused by the address it is connected to", function(t)
  checked(t)
  t:probe(URL, { { curl = "private" } })
  refused(t, ask(t, URL), "file_not_public", "does not lead to a public web server")
end)

test("redirects are followed, and each is checked", function(t)
  checked(t)
  t:probe(URL, { { status = 302, headers = { location = "/b.pdf?sig=1" } } })
  t:probe("https://files.example/b.pdf?sig=1", { PDF })
  t:eq(ask(t, URL).status, 200)
  for i, location in ipairs { "http://127.0.0.1/", "http://files.example/x", "https://10.0.0.1/x",
      "ftp://files.example/",
                              "https://a:b@files.example/", "//169.254.169.254/x", "https://files.example:25/" } do
    local url = ("https://files.example/r%d.pdf"):format(i)
    t:probe(url, { { status = 301, headers = { location = location } } })
    local r = ask(t, url)
    t:eq(r.upstream_calls, 0, location)
    t:eq(r.status, 400, location)
    t:ok(r.json.error.code == "file_not_public" or r.json.error.code == "invalid_file_url", r.json.error.code)
  end
end)

test("redirects without end are not followed for ever", function(t)
  checked(t, { redirects = 3 })
  local round = {}
  for i = 1, 10 do round[i] = { status = 302, headers = { location = URL } } end
  t:probe(URL, round)
  refused(t, ask(t, URL), "file_unreachable", "HTTP 302")
  t:eq(#t:requests("probe"), 4)
end)

test("no redirects when told so", function(t)
  checked(t, { redirects = 0 })
  t:probe(URL, { { status = 302, headers = { location = URL } } })
  refused(t, ask(t, URL), "file_unreachable", "HTTP 302")
  t:eq(#t:requests("probe"), 1)
end)

test("a server that knows no HEAD is asked for one byte", function(t)
  checked(t, { max_size = 500 })
  t:probe(URL, { { status = 405 }, { status = 206, headers = { ["content-type"] = "application/pdf",
                                                               ["content-range"] = "bytes 0-0/501",
                                                                   ["content-length"] = 1 } } })
  refused(t, ask(t, URL), "file_too_large", "has 501 bytes")
  local asked = t:requests("probe")
  t:eq(asked[2].method, "GET")
  t:eq(asked[2].headers["range"], "bytes=0-0")
end)

test("a server that keeps the size to itself", function(t)
  checked(t, { unknown_size = "refuse" })
  local silent = { headers = { ["content-type"] = "application/pdf" }, chunks = { "x" } }
  t:probe(URL, { silent, silent })
  refused(t, ask(t, URL), "file_too_large", "does not say how large")
end)

test("a file that is not there, or whose server is silent", function(t)
  checked(t, { timeout = 2 })
  t:probe("https://files.example/none.pdf", { { status = 404 } })
  refused(t, ask(t, "https://files.example/none.pdf"), "file_unreachable", "HTTP 404")
  t:probe("https://files.example/slow.pdf", { { hang = true } })
  local r = ask(t, "https://files.example/slow.pdf")
  refused(t, r, "file_unreachable", "did not answer in time")
  t:eq(r.elapsed, 2)
  t:probe("https://files.example/gone.pdf", { { curl = "dns" } })
  refused(t, ask(t, "https://files.example/gone.pdf"), "file_unreachable", "could not be reached")
end)

test("unreachable files pass when told so, private ones never", function(t)
  checked(t, { unreachable = "pass" })
  t:probe("https://files.example/gone.pdf", { { curl = "connect" } })
  t:eq(ask(t, "https://files.example/gone.pdf").status, 200)
  refused(t, ask(t, "http://127.0.0.1/"), "file_not_public", "public")
end)

test("slow servers cannot hold a request for longer than ten seconds", function(t)
  checked(t, { timeout = 10, max_urls = 4 })
  local urls = {}
  for i = 1, 4 do
    urls[i] = ("https://files.example/%d.pdf"):format(i)
    t:probe(urls[i], { { hang = true } })
  end
  local r = ask(t, table.unpack(urls))
  t:eq(r.elapsed, 10)
  t:eq(#r.json.error.details, 4)
end)

test("every wrong URL is named, without its query", function(t)
  checked(t)
  t:probe("https://files.example/one.pdf", { { status = 404 } })
  t:probe("https://files.example/two.pdf", { PDF })
  local r = ask(t, "https://files.example/one.pdf?X-Signature=abc123", "https://files.example/two.pdf?sig=def456",
    "http://10.0.0.1/three.pdf?token=ghi789")
  t:eq(r.status, 400)
  t:match(r.json.error.message, "input%[0%]%.content%[0%]%.file_url: https://files%.example/one%.pdf was answered")
  t:match(r.json.error.message, "input%[0%]%.content%[2%]%.file_url: http://10%.0%.0%.1/three%.pdf does not")
  for _, secret in ipairs { "abc123", "def456", "ghi789" } do
    t:ok(not r.body:find(secret, 1, true))
    for _, why in ipairs(r.why) do t:ok(not why:find(secret, 1, true)) end
  end
end)

test("a URL that stands twice is asked once and named twice", function(t)
  checked(t)
  t:probe(URL, { { status = 404 } })
  local r = ask(t, URL, URL)
  t:eq(#t:requests("probe"), 1)
  t:eq(#r.json.error.details, 2)
end)

test("too many files", function(t)
  checked(t, { max_urls = 2 })
  local r = ask(t, URL .. "1", URL .. "2", URL .. "3")
  refused(t, r, "too_many_files", "names 3 files, more than 2")
  t:eq(#t:requests("probe"), 0)
end)

test("findings are remembered: good ones as long as told, failures for half a minute", function(t)
  checked(t, { remember = 300 })
  t:probe(URL, { PDF, PDF })
  ask(t, URL)
  ask(t, URL)
  t:eq(#t:requests("probe"), 1)
  t:advance(300)
  ask(t, URL)
  t:eq(#t:requests("probe"), 2)
  local other = "https://files.example/b.pdf"
  t:probe(other, { { status = 503 }, PDF })
  t:eq(ask(t, other).status, 400)
  t:eq(ask(t, other).status, 400)
  t:eq(#t:requests("probe"), 3)
  t:advance(30)
  t:eq(ask(t, other).status, 200)
end)

test("Anthropic's documents and images, in their dialect", function(t)
  checked(t)
  t:route { client_dialect = "anthropic" }
  t:provider { dialect = "anthropic" }
  t:probe("https://files.example/a.html", { { headers = { ["content-type"] = "text/html", ["content-length"] = 5 } } })
  local r = t:call { path = "/v1/messages", body = { model = "m", max_tokens = 5, messages = { { role = "user",
      content = {
    { type = "document", source = { type = "url", url = "https://files.example/a.html" } },
    { type = "tool_result", content = { { type = "image", source = { type = "url",
        url = "http://127.0.0.1/x.png" } } } },
  } } } } }
  t:eq(r.status, 400)
  t:eq(r.upstream_calls, 0)
  t:eq(r.json.error.type, "invalid_request_error")
  t:match(r.json.error.message, "messages%[0%]%.content%[0%]%.source%.url: https://files%.example/a%.html is text/html")
  t:match(r.json.error.message, "messages%[0%]%.content%[1%]%.content%[0%]%.source%.url: http://127")
end)

test("KIMI's codes for KIMI's clients: -2003 illegal, -2004 too large", function(t)
  checked(t, { style = "kimi", max_size = 10 })
  t:probe(URL, { PDF })
  local r = ask(t, URL)
  t:eq(r.status, 413)
  t:eq(r.json.errcode, -2004)
  t:match(r.json.errmsg, "has 1000 bytes")
  r = ask(t, "ftp://x/")
  t:eq(r.status, 400)
  t:eq(r.json.errcode, -2003)
end)

test("places of one's own", function(t)
  checked(t, { paths = { "attachments.*.link" } })
  local r = t:call { path = "/v1/chat/completions", body = { model = "m", attachments = { { link = "ftp://x/" } } } }
  t:eq(r.status, 400)
  t:eq(r.json.error.param, "attachments[0].link")
end)

test("a schema of a tool is no file", function(t)
  checked(t)
  local r = t:call { path = "/v1/chat/completions", body = { model = "m", tools = {
    { type = "function", ["function"] = { name = "f",
        parameters = { properties = { file_url = "http://127.0.0.1" } } } } } } }
  t:eq(r.status, 200)
end)

test("a URL behind more parts than a policy could look at is found", function(t)
  checked(t)
  local many = '{"model":"m","messages":[' .. ("[[]],"):rep(30000) .. '{"image_url":"http://127.0.0.1/"}]}'
  local r = t:call { body = many, path = "/v1/chat/completions" }
  t:eq(r.status, 400)
  t:eq(#r.faults, 0)
  local members = {}
  for i = 1, 4000 do members[i] = ('"k%d":0'):format(i) end
  local wide = '{"model":"m","metadata":{%s,"file_url":"http://127.0.0.1/"}}'
  r = t:call { body = wide:format(table.concat(members, ",")), path = "/v1/chat/completions" }
  t:eq(r.status, 400)
  t:eq(#r.faults, 0)
end)

test("a body that cannot be searched is refused, or passes when told so", function(t)
  checked(t)
  t:eq(t:call({ model = "m", path = "/v1/chat/completions", headers = { ["content-encoding"] = "gzip" } }).status, 413)
end)

test("and passes when told so", function(t)
  checked(t, { unsearchable = "pass" })
  local r = t:call { model = "m", path = "/v1/chat/completions", headers = { ["content-encoding"] = "gzip" } }
  t:eq(r.status, 200)
  t:eq(#r.faults, 0)
end)

test("a URL behind a megabyte of pictures is found", function(t)
  checked(t)
  local picture = '{"type":"image_url","image_url":{"url":"data:image/png;base64,' .. ("A"):rep(100000) .. '"}},'
  local body = '{"model":"m","messages":[{"role":"user","content":[' .. picture .. '{"type":"file","file_url":'
    .. '"http:\\/\\/127.0.0.1\\/x"}]}]}'
  local r = t:call { body = body, path = "/v1/chat/completions" }
  t:eq(r.status, 400)
  t:eq(r.json.error.code, "file_not_public")
end)

test("types that are not known must be media types", function(t)
  t:match(t:refused(function() checked(t, { types = { "exe" } }) end), "types: \"exe\" is not known here")
  t:eq(t:refused(function() checked(t, { types = { "application/x-tex" } }) end), nil)
end)

-- `paths` with a star walked through all of a long list: over budget, a fault for each such call, and the files in it
-- passed unseen. So they did behind sixty places of a file that is fine.
test("places of one's own are looked at within the budget, and all of them or none", function(t)
  checked(t, { paths = { "files.*.link", "files.*.link.*" } })
  t:probe("https://a.example/a.pdf", { PDF })
  local r = t:call { body = '{"model":"m","files":[' .. ('{"link":5},'):rep(20000) .. '{"link":"http://10.0.0.1/"}]}' }
  t:eq(#r.faults, 0)
  t:eq(r.status, 413)
  t:match(r.body, "too many parts")
  r = t:call { body = '{"model":"m","files":[' .. ('{"link":"https://a.example/a.pdf"},'):rep(70)
                      .. '{"link":"http://10.0.0.1/"}]}' }
  t:eq(#r.faults, 0)
  t:eq(r.status, 400)
  t:match(r.body, "more than 60")
end)
