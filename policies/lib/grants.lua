-- How a credential gets a new access token: one function per `grant` of init.lua. What init.lua gives as `refresh`
-- replaces these and has the same form:
--
--   function(cred) → { token =, expires_in =, refresh_token = }   or nil, "why"
--
-- cred.refresh_token is opaque: it can be put into a form, JSON or a header, and is never seen here.

local function text(value)
  return type(value) == "string" and value ~= "" and value or nil
end

local function number(value)
  value = tonumber(value)
  return value and value >= 0 and value or nil
end

-- What went wrong, in the server's words when it has any. Never the body: it may repeat a token.
local function refusal(answer, body)
  local said
  if type(body) == "table" then
    said = text(body.error_description) or text(body.error) or text(body.errmsg) or text(body.message)
  end
  return ("the token endpoint answered %d%s"):format(answer.status, said and ": " .. said:sub(1, 120) or "")
end

local function renewal(body)
  local token = text(body.access_token)
  if not token then return nil end
  return { token = token, expires_in = number(body.expires_in), refresh_token = text(body.refresh_token) }
end

local function ask(request)
  local answer, err = http.request(request)
  if not answer then return nil, nil, err.message end
  local body = answer.json()
  if type(body) ~= "table" or answer.status < 200 or answer.status >= 300 then
    return nil, nil, refusal(answer, body)
  end
  return answer, body
end

-- RFC 6749 §6: the refresh token as a form, the answer as JSON.
local function oauth(cred)
  local answer, body, why = ask {
    method = "POST",
    url = cred.token_url,
    headers = { accept = "application/json" },
    form = { grant_type = "refresh_token", refresh_token = cred.refresh_token },
  }
  if not answer then return nil, why end
  local result = renewal(body)
  if not result then return nil, refusal(answer, body) end
  return result
end

-- KIMI: JSON both ways, the answer wrapped as { errcode = 0, data = { … } } or plain.
local function kimi(cred)
  local answer, body, why = ask {
    method = "POST",
    url = cred.token_url,
    headers = { accept = "application/json" },
    json = { refresh_token = cred.refresh_token },
  }
  if not answer then return nil, why end
  if body.errcode and body.errcode ~= 0 then
    return nil, ("the token endpoint said errcode %s%s"):format(tostring(body.errcode),
      text(body.errmsg) and ": " .. body.errmsg:sub(1, 120) or "")
  end
  local result = renewal(type(body.data) == "table" and body.data or body)
  if not result then return nil, refusal(answer, body) end
  return result
end

return { oauth = oauth, kimi = kimi }
