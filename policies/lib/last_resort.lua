--- Going where a policy of ours refused to go, because nobody else could take the call.
--
-- A policy that refuses attempts (an open circuit breaker, an unhealthy target) says in its on_error, with
-- `when = { fallback = true, last = true }`, what is to happen when no other policy found another target. Being asked
-- last is what "no other target could take the call" means here: whatever fallbacks the chain has were asked before and
-- had nowhere left to go.

local last_resort = {}

--- The targets that this call was refused at with this code and has not been sent to since, in order of refusal; and
--- the time of the first refusal, nil when there is none.
function last_resort.refused(call, code)
  local entries, last = call.ledger, {}
  local first
  for i = 1, #entries do
    local entry = entries[i]
    local err = entry.err
    local is_ours = err ~= nil and err.source == "parry" and err.code == code
    last[entry.target] = is_ours
    if is_ours and not first then first = entry.ended end
  end
  local targets, seen = {}, {}
  for i = 1, #entries do
    local target = entries[i].target
    if last[target] and not seen[target] then
      seen[target] = true
      targets[#targets + 1] = target
    end
  end
  return targets, first
end

--- The verdict that sends the call to `target`, one of those above, in `after` seconds.
function last_resort.go(call, target, after, why)
  if target == call.target.name then
    return retry { after = after, why = why }
  end
  return fallback { target = target, after = after, why = why }
end

return last_resort
