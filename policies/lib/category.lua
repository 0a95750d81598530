--- The names of all categories of failure, for checks of parameters that hold them in tables of their own. A parameter
--- of type "category", or a list of them, is checked by the core and needs none of this.

local category = {}

local KNOWN = {
  auth = true, permission = true, billing = true, rate_limit = true, overloaded = true, server = true, timeout = true,
  network = true, invalid_request = true, not_found = true, context_length = true, content_policy = true,
  conflict = true, payload_too_large = true, cancelled = true, unknown = true,
}

--- nil, or what is wrong with this name.
function category.complaint(name)
  if not KNOWN[name] then
    return ("there is no category %q"):format(tostring(name))
  end
end

return category
