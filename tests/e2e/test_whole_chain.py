"""All policies in one chain, in the order that init.lua names: who speaks, how often providers are asked, what is left
behind. And no request and no answer makes any of them, or a dialect, fault: twenty faults would take good policies
back."""

import json
import random
import threading

import pytest

from harness import answer, event, failure, ok, stream, then_close, then_reset, wait_until

ENV = {name: f"sk-chain-{name}-0123456789" for name in ("KEY", "K1", "K2", "HOOK")}

INIT = """
provider "p" {{ base_url = "{p}/v1", dialect = "{dialect}", auth = bearer(secret "K1"), keys = {{ secret "K2" }} }}
provider "q" {{ base_url = "{q}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "a" {{ base_url = "{q}/v1", dialect = "anthropic", auth = bearer(secret "KEY") }}
provider "k" {{ base_url = "{q}/v1", dialect = "kimi", auth = bearer(secret "KEY") }}
provider "g" {{ base_url = "{q}/v1", dialect = "generic", auth = bearer(secret "KEY") }}
provider "z" {{ base_url = "{q}/v1", dialect = "azure", auth = bearer(secret "KEY") }}
provider "y" {{ base_url = "{q}/v1", dialect = "gemini", auth = bearer(secret "KEY") }}
sink "ops" {{ webhook = secret "HOOK" }}
local function chain(style)
  return {{
    use "client_limits" {{ limits = {{ ["*"] = {{ calls_per_minute = 100000, concurrent = 1000, tokens_per_day = 1e12 }} }} }},
    use "validate" {{ style = style }},
    use "file_check" {{ unsearchable = "pass", unreachable = "pass", timeout = 0.2, style = style }},
    use "session_queue" {{ {session} max_wait = 20, pause = 0.01 }},
    use "concurrency" {{ slots = {slots}, max_wait = 20, max_waiting = 1000 }},
    use "rate_limit" {{ limit = 10000, per = 60, rate = 1e6, burst = 1e9, cost = "tokens", pause = 0.01 }},
    use "circuit_breaker" {{ failures = {failures}, cooldown = {cooldown}, when_all_open = "{all_open}", to = "ops" }},
    use "health" {{ interval = 3600, targets = {{ "q" }}, to = "ops" }},
    use "chaos" {{ experiments = {{ busy = {{ category = "overloaded", rate = 1 }} }}, allow_requests = true }},
    use "token_refresh" {{ to = "ops" }},
    use "keys" {{ pause = {pause}, retire = 60, to = "ops" }},
    use "retry" {{ max_attempts = 3, base = 0.01, cap = 0.05, quota = 10000 }},
    use "fallback_model" {{ stick = 60, models = {{ {models} }} }},
    use "alert" {{ to = "ops", by = "target", rules = {{ {{ category = "server", count = 3, window = 60 }},
                                                        {{ category = "overloaded", count = 3, window = 60 }} }} }},
    use "standard_errors" {{ style = style, pass_messages = true, pass_codes = true }},
  }}
end
local to = by_model {{ ["a-*"] = "a", ["k-*"] = "k", ["g-*"] = "g", ["z-*"] = "z", ["y-*"] = "y", ["*"] = "p" }}
local timeouts = {{ connect = 5, first_byte = 5, idle = 5 }}
route "/v1/messages*" {{ to = to, client_dialect = "anthropic", chain = chain("{style}"), deadline = 20, max_targets = 6,
                        timeouts = timeouts, session = {{ field = "metadata.user_id" }} }}
route "/v1/*" {{ to = to, client_dialect = "openai", chain = chain("{style}"), deadline = 20, max_targets = 6,
                timeouts = timeouts }}
"""

DEFAULTS = {"dialect": "openai", "session": "", "slots": 500, "failures": 100, "cooldown": 60, "all_open": "fail",
            "pause": 60, "models": '["*"] = { "q/x" }', "style": "client"}


class World:
    def __init__(self, start, p=None, q=None, **values):
        hook = start.receiver()
        self.p, self.q = start.provider(otherwise=p or ok()), start.provider(otherwise=q or ok())
        self.parry = start.gateway(INIT.format(p=self.p.url, q=self.q.url, **{**DEFAULTS, **values}),
                                   env={**ENV, "HOOK": hook.url + "/"})

    def asked(self):
        """How often the two were asked, checks of health left out."""
        return tuple(sum(asked.method == "POST" for asked in one.asked) for one in (self.p, self.q))

    def done(self):
        self.parry.wait_idle()
        assert not self.parry.log("policy fault"), self.parry.log("policy fault")[:3]


def by_turns(*steps):
    """A step that answers the first requests with these, and all others with the last one."""
    left, lock = list(steps), threading.Lock()

    def step(asked):
        with lock:
            data = left.pop(0) if len(left) > 1 else left[0]
        asked.send(data)
        return True
    return step


def kimi(code):
    return answer(200, {"errcode": code, "errmsg": "no", "data": None})


# what p answers, what q answers, how often each is asked, the client's status, other settings
SITUATIONS = {
    "all is well": (ok(), ok(), (1, 0), 200, {}),
    "one failure passes": (by_turns(failure(500), ok()), ok(), (2, 0), 200, {}),
    "a lasting one goes elsewhere": (failure(500), ok(), (3, 1), 200, {}),
    "both fail": (failure(500), failure(503), (3, 3), 503, {}),
    "the breaker opens during the retries": (failure(500), ok(), (2, 1), 200, {"failures": 2}),
    "open breakers are tried anyway, within max_attempts": (failure(500), failure(500), (3, 3), 500,
                                                          {"failures": 1, "all_open": "try_anyway"}),
    "a wrong key leads to the next": (by_turns(failure(401), ok()), ok(), (2, 0), 200, {}),
    "two wrong keys": (failure(401), ok(), (2, 0), 401, {}),
    "a limit rests the key, then there is none": (failure(429), ok(), (2, 1), 200, {}),
    "no money": (failure(402, code="insufficient_quota"), ok(), (2, 1), 200, {}),
    "a wrong request": (failure(400), ok(), (1, 0), 400, {}),
    "a prompt that is too long": (failure(400, code="context_length_exceeded"), ok(), (1, 1), 200, {}),
    "a conflict is waited for in the turn": (by_turns(failure(409), failure(409), ok()), ok(), (3, 0), 200, {}),
    "KIMI's conflict in a 200": (by_turns(kimi(-2005), ok()), ok(), (2, 0), 200, {"dialect": "kimi"}),
    "KIMI's token with nothing to renew": (kimi(-2002), ok(), (2, 0), 401, {"dialect": "kimi"}),
    "a connection that breaks": (then_reset(), ok(), (3, 1), 200, {}),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_how_often_providers_are_asked(start, name):
    p, q, asked, status, values = SITUATIONS[name]
    world = World(start, p, q, **values)
    reply = world.parry.chat("m", headers={"x-session-id": "s"})
    assert (world.asked(), reply.status) == (asked, status), reply
    assert reply.attempts >= sum(asked)
    world.done()


def test_refused_before_anything_is_sent(start):
    world = World(start)
    assert world.parry.chat("m", temperature=9).status == 400
    assert world.parry.post("/v1/chat/completions", {"model": "m"}).status == 400
    picture = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]
    assert world.parry.chat("m", text=picture).json()["error"]["code"] == "file_not_public"
    assert world.asked() == (0, 0)
    world.done()


def test_a_conversation_that_went_elsewhere_stays_there_and_in_its_order(start):
    world = World(start, p=failure(500))
    for _ in range(3):
        assert world.parry.chat("m", headers={"x-session-id": "s"}).target == "q/x"
    assert world.asked() == (3, 3)
    world.done()


@pytest.mark.parametrize("p", ["fine", "down", "injected"])
def test_a_hundred_at_once_leave_nothing_behind(start, p):
    """Few places, five conversations: each call holds its turn and waits for a place, and nobody waits for ever."""
    world = World(start, p=failure(500) if p == "down" else ok(), slots=3, failures=5 if p == "down" else 1000)
    headers = {"x-parry-fault": "code=529;times=1"} if p == "injected" else {}
    replies = []

    def caller(number):
        for _ in range(2):
            replies.append(world.parry.chat("m", headers={**headers, "x-session-id": f"s{number % 5}"}))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 150
    assert {reply.status for reply in replies} == {200}, [reply for reply in replies if reply.status != 200][:3]
    asked = world.asked()
    if p == "fine":
        assert asked == (150, 0)
    if p == "down":  # those under way when the breaker opened, and no retries beyond the budget
        assert asked[0] < 20 and asked[1] == 150, asked
    if p == "injected":
        assert sum(asked) == 150, asked
    world.done()


# --- Nobody can make a policy fault ------------------------------------------------------------------------------

TEXTS = ["", " ", "m", "a/b", "*", "%s%n", "a\0b", "\ud800", "\u202e", "é" * 120, "x" * 300, "y" * 5000, "user", "assistant",
         "tool", "system", "text", "image_url", "tool_use", "tool_result", "thinking", "base64", "data:image/png;base64,",
         "http://[::", "http://127.0.0.1/a", "-2001", "-2002", "-99999999999999999999", "429", "server_error", "1302",
         "z" * 400 + "...[9999999999999999999999 bytes]", "/" * 3000 + "x", " " * 3000 + "x", "1s" * 2000,
         "RESOURCE_EXHAUSTED", "Traceback (most recent call last)"]
NUMBERS = [0, -1, 1, 1.5, 1e300, -1e300, float("inf"), float("nan"), 2**63 - 1, -2**63, 10**20, 429, 500, -2001]
NAMES = ["model", "messages", "user", "role", "content", "type", "text", "image_url", "url", "source", "data", "tools",
         "function", "name", "parameters", "tool_calls", "id", "input", "stream", "temperature", "max_tokens", "n", "stop",
         "system", "metadata", "user_id", "conversation", "error", "code", "message", "errcode", "errmsg", "status",
         "details", "choices", "delta", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens",
         "output_tokens", "finish_reason", "simulateError", "errorCode", "delay", "promptFeedback", "blockReason",
         "candidates", "retryDelay", "tool_use_id", "tool_call_id", "arguments", "thinking", "signature", "error_type",
         "quotaId", "metadata", "index", "content_block", "usageMetadata", "promptTokenCount", "previous_response_id"]


class Dice(random.Random):
    def value(self, depth=3):
        kind = self.randrange(8 if depth > 0 else 3)
        if kind == 0:
            return self.choice(NUMBERS)
        if kind == 1:
            return self.choice(TEXTS)
        if kind == 2:
            return self.choice([None, True, False, [], {}])
        if kind == 3:
            return [self.value(depth - 1) for _ in range(self.randrange(4))]
        return {self.choice(NAMES): self.value(depth - 1) for _ in range(self.randrange(6))}

    def part(self):
        return self.choice([
            {"type": "text", "text": self.value(1)}, {"type": "image_url", "image_url": {"url": self.choice(TEXTS)}},
            {"type": "tool_use", "id": self.value(0), "name": self.value(0), "input": self.value(2)},
            {"type": "tool_result", "tool_use_id": self.value(0), "content": self.value(2)},
            {"type": "thinking", "thinking": self.value(0), "signature": self.value(0)}, self.value(2)])

    def body(self):
        kind = self.randrange(12)
        if kind == 0:
            return self.choice([b"", b"\xff\xfe", b"[" * 5000, b'{"model":"m"', b"null", b"[1,2]", b'{"a":"\xff"}'])
        if kind == 1:
            return self.dump(self.value())
        messages = [{"role": self.choice(["user", "assistant", "tool", self.value(0)]),
                     "content": self.choice([self.choice(TEXTS), [self.part(), self.part()], self.value(2)]),
                     **self.choice([{}, {"tool_calls": [self.value(2)]}, {"tool_call_id": self.value(0)}])}
                    for _ in range(self.randrange(1, 4))]
        body = {"model": self.choice(["m", "a-1", "k-1", "g-1", "z-1", "y-1", self.value(0)]), "messages": messages,
                "max_tokens": self.choice([10, 10, 10, self.value(0)])}
        if self.random() < 0.4:  # nothing that validate would refuse
            body["messages"] = [{"role": "user", "content": "hello"}]
            body["stream"] = self.random() < 0.3
        for name in self.sample(["user", "metadata", "tools", "stop", "system", "thinking", "conversation"], 2):
            body[name] = self.value(2)
        return self.dump(body)

    def dump(self, value):
        """JSON, with what Python has no JSON for as other programs write it."""
        return json.dumps(value).replace("Infinity", "1e400").replace("NaN", "null").encode()

    def headers(self):
        headers = {"content-type": "application/json"}
        values = {"x-session-id": ["s1", "s2", "s" * 127, "s" * 3000, "\xff\xfe"], "traceparent": ["00-" + "a" * 3000],
                  "x-parry-fault": ["code=500;times=1", "-2001", "code=" + "x" * 90, "a=b" + " " * 4000 + "x", "=;=", "\xff"],
                  "content-encoding": ["identity", "gzip", "x" * 500]}
        for name in self.sample(sorted(values), self.choice([0, 0, 1, 1, 2])):
            headers[name] = self.choice(values[name])
        return headers

    def answer(self):
        kind = self.randrange(14)
        if kind == 0:
            return then_reset(b"")
        if kind == 1:
            return then_close(answer(200, self.dump(self.value()))[:-3])
        if kind <= 4:
            events = [event(self.event()) for _ in range(self.randrange(1, 6))]
            return stream(*events)
        odd = ["0", "1", "-1", "nan", "inf", "1e300", "0x10", "20ms", "6m0s", "1s" * 4000, "9" * 300, "", "true", "false",
               "2026-11-21T19:28:00Z", "9999-99-99T99:99:99Z", "0000-00-00T00:00:00+99:99", "4102444800000", "\xff"]
        names = ["x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens",
                 "x-ratelimit-reset-tokens", "x-ratelimit-remaining", "x-ratelimit-reset", "x-should-retry",
                 "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", "x-amzn-errortype"]
        headers = {name: self.choice(odd) for name in self.sample(names, self.randrange(5))}
        headers.update(self.choice([{}, {}, {"retry-after": self.choice(["0", "-1", "1e300", "nan", "soon"])}]))
        status = self.choice([200, 200, 200, 201, 400, 400, 401, 402, 403, 404, 408, 409, 413, 418, 429, 429, 451, 500, 503,
                              529, 599])
        body = self.choice([
            self.value(), {"error": self.value()}, {"errcode": self.value(0), "errmsg": self.value(0)},
            {"error": {name: self.value(1) for name in ("code", "message", "type", "status", "details")}},
            [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": self.value(0), "details": self.value(3)}}],
            {"choices": [{"message": {"role": "assistant", "content": self.value(1), "tool_calls": self.value(2)}}],
             "usage": {name: self.choice(NUMBERS) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}},
            {"type": "message", "content": self.value(3), "usage": self.value(2)},
            {"promptFeedback": {"blockReason": self.value(0)}, "usageMetadata": self.value(1)}])
        data = self.choice([self.dump(body), self.dump(body), self.dump(body), b"<html>" + b"x" * 5000, b"\xff\xfe", b""])
        return answer(status, data, headers)

    def event(self):
        return self.dump(self.choice([
            self.value(), {"error": self.value(2)}, {"type": "error", "error": self.value(2)}, {"usage": self.value(2)},
            {"choices": [{"delta": {"content": self.choice(TEXTS)}, "finish_reason": self.choice([None, "stop"])}]},
            {"choices": [{"delta": {"tool_calls": self.value(2)}}]}, {"type": "message_stop"},
            {"type": "message_start", "message": self.value(2)},
            {"type": "content_block_start", "index": 0, "content_block": self.value(1)},
            {"type": "content_block_delta", "index": self.value(0), "delta": self.value(1)},
        ])).decode()


MODELS = """["a-*"] = { "q/x" }, ["k-*"] = { "a/x", "y/x" }, ["g-*"] = { "z/x" }, ["*"] = { "a/x", "k/x", "z/x", "g/x" }"""


@pytest.mark.parametrize("style, session", [("client", ""), ("house", 'key = "user",'), ("kimi", 'key = "conversation",')])
def test_nothing_from_outside_makes_a_policy_or_a_dialect_fault(start, style, session):
    seed = {"client": 1, "house": 2, "kimi": 3}[style]
    dice, lock = Dice(seed), threading.Lock()

    def anything(asked):
        with lock:
            data = dice.answer()
        if isinstance(data, bytes):
            asked.send(data)
            return True
        return data(asked)

    world = World(start, p=anything, q=anything, style=style, session=session, models=MODELS, pause=0.01, cooldown=0.1,
                  failures=5)
    paths = ["/v1/chat/completions"] * 3 + ["/v1/messages"] * 2 + ["/v1/responses", "/v1/embeddings", "/v1/completions",
             "/v1/messages/count_tokens", "/v1/" + "/" * 3000 + "x"]
    answered = []

    def caller(number):
        own = Dice(seed * 100 + number)
        for _ in range(60):
            reply = world.parry.post(own.choice(paths), own.body(), own.headers())
            answered.append(reply.status)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(answered) == 8 * 60
    assert sum(world.asked()) > 100 and answered.count(200) > 10, (world.asked(), answered)
    wait_until(lambda: len(world.parry.log("call")) >= len(answered) - answered.count(404), "the calls' lines")
    world.done()


def test_answers_that_are_no_json_are_the_providers_fault(start):
    """A translated call's 200 that is no JSON was counted as a fault of the dialect, so that a broken proxy in front of
    a provider took good policies back."""
    world = World(start, q=answer(200, b"<html>welcome</html>"), failures=1000, models="")
    for _ in range(25):
        reply = world.parry.chat("a-1")
        assert (reply.status, reply.json()["error"]["code"]) == (503, "untranslatable"), reply
    assert world.asked() == (0, 25)
    world.done()
