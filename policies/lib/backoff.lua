--- How long to wait before trying again.
--
-- Every function takes `p`, a table with `base` (the first wait) and `cap` (the longest one), both in seconds; the
-- `self` of a policy with parameters of these names will do. `n` counts the attempts made so far, from 1. The result is
-- in seconds. random() is the call's own: the same event gives the same wait again.
--
-- The core never goes below what the server asked for (Retry-After) and never past the deadline; nothing here has to
-- know about either.
--
--   local backoff = require "lib.backoff"
--   return retry { after = backoff.full_jitter(self, call.target.attempts) }

local min, random = math.min, random

local backoff = {}

--- base, 2 x base, 4 x base, ... up to cap. The same for every call, so calls that failed together come back together:
--- what the others below are made of, and seldom right by itself.
function backoff.exponential(p, n)
  return min(p.cap, p.base * 2.0 ^ (n - 1))
end

--- Anywhere between 0 and the exponential wait. Spreads the calls best; the right choice unless you know better.
function backoff.full_jitter(p, n)
  return random() * backoff.exponential(p, n)
end

--- Between half the exponential wait and all of it: never almost at once, a little less spread.
function backoff.equal_jitter(p, n)
  local half = backoff.exponential(p, n) / 2
  return half + random() * half
end

--- Between base and three times the wait before; `previous` is nil the first time. Grows as the exponential one does,
--- without being tied to the attempt's number.
function backoff.decorrelated_jitter(p, previous)
  local most = math.max(p.base, (previous or p.base) * 3)
  return min(p.cap, p.base + random() * (most - p.base))
end

return backoff
