--- How session_queue may tell conversations apart. Each function gets the call and gives the name of its conversation,
-- or nil when the call belongs to none. Add your own here and name it: use "session_queue" { key = "yours" }.

local keys = {}

--- What the route says (its `session = { header = ... }` or `{ field = ... }`), else the header x-session-id.
function keys.session(call)
  return call.session
end

--- The end user as OpenAI's and Anthropic's APIs name one: `user`, `safety_identifier`, `metadata.user_id`.
function keys.user(call)
  return call:field("user") or call:field("safety_identifier") or call:field("metadata.user_id")
end

--- The thread of OpenAI's Responses API: the conversation, or the answer that this request goes on from.
function keys.conversation(call)
  return call:field("conversation") or call:field("conversation.id") or call:field("previous_response_id")
end

return keys
