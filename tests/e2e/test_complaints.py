"""What users of other gateways complained about, one test for each complaint that applies here.

Each test is named after the issue it answers and tells its story first; the project's name and number are in the name.
They run over real sockets, on four workers, with a provider that fails as the story says and counts what it was asked.
"""

import json
import threading

import pytest

from harness import (answer, delta, event, failure, ok, refused_port, stream, then_close, then_hang, then_reset,
                     wait_until)

FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
QUICK = 'use "retry" { max_attempts = 4, base = 0.01, cap = 0.02 }'


def good_stream(text):
    return stream(delta(role="assistant", content=""), delta(content=text), FINISH, event("[DONE]"))


def init_for(chain, route="", **providers):
    """Routes /v1/* to the provider "p" (or the first that is named) with that chain."""
    text = "".join(f'provider "{name}" {{ base_url = "{provider.url}/v1", dialect = "openai" }}\n'
                   for name, provider in providers.items())
    first = next(iter(providers))
    return text + (f'route "/v1/*" {{ to = "{first}", deadline = 20, timeouts = {{ first_byte = 5, idle = 1 }}, {route}\n'
                   f"  chain = {{ {chain} }} }}\n")


def fallback(**models):
    lists = ", ".join(f'["{model}"] = {{ "{target}" }}' for model, target in models.items())
    return f'use "fallback_model" {{ models = {{ {lists} }} }}'


# --- Retry and its waits ----------------------------------------------------------------------------------------


def test_litellm_20722_each_error_s_own_retry_after_counts(start):
    """The retry loop kept the first exception: later Retry-After headers were ignored, twelve times too fast."""
    waits = [100, 700, 300]
    provider = start.provider(*[failure(429, headers={"retry-after-ms": str(wait)}) for wait in waits], ok("at last"))
    times = []
    steps = provider.steps[:]
    provider.steps = [lambda asked, step=step: (times.append(asked.at), asked.send(step), True)[-1] for step in steps]
    gateway = start.gateway(init_for(QUICK, p=provider))
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.attempts == 4
    for wait, (before, after) in zip(waits, zip(times, times[1:])):
        assert after - before >= wait / 1000 - 0.005, (times, "never before the server's time")


def test_litellm_34399_retry_after_holds_also_with_several_targets(start):
    """With more than one deployment the header was dropped and the next try came at once: here another target is free to be
    asked, but the one that named a time is not asked before it, also after a detour."""
    times = []

    def limited(asked):
        times.append(asked.at)
        asked.send(failure(429, headers={"retry-after-ms": "400"}) if len(times) == 1 else ok("home"))
        return True

    p = start.provider(otherwise=limited)
    q = start.provider(otherwise=failure(503))
    init = init_for('use "fallback_model" { models = { ["m"] = { "q/m" } } }, use "back"', p=p, q=q)
    folder = start.folder(init)
    folder.write("back.lua", 'return policy { name = "back", on_error = function(self, call, err)\n'
                             '  if #call.ledger == 2 then return fallback { target = "p/m" } end end }\n')
    gateway = start.gateway(folder)
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.target == "p/m" and reply.attempts == 3, reply
    assert times[1] - times[0] >= 0.395


def test_litellm_40405_a_single_target_that_is_down_trips_its_breaker(start):
    """One primary, one fallback, as documented: the breaker never opened, and eleven calls made 33 slow attempts."""
    p, q = start.provider(otherwise=failure(503)), start.provider(otherwise=ok("from q"))
    chain = 'use "circuit_breaker" { failures = 5, cooldown = 60 }, ' + QUICK + ", " + fallback(m="q/m")
    gateway = start.gateway(init_for(chain, p=p, q=q))
    assert all(gateway.chat("m").json()["choices"][0]["message"]["content"] == "from q" for _ in range(11))
    assert len(p.asked) == 5 and len(q.asked) == 11


def test_litellm_27823_all_targets_in_cooldown_still_say_when(start):
    """All deployments cooling down gave a 429 without Retry-After."""
    p = start.provider(otherwise=failure(503))
    gateway = start.gateway(init_for('use "circuit_breaker" { failures = 1, cooldown = 30 }', p=p))
    assert gateway.chat("m").status == 503
    refused = gateway.chat("m")
    assert refused.status == 503 and 25 <= int(refused.headers["retry-after"]) <= 30 and len(p.asked) == 1


def test_litellm_40130_a_second_cooldown_never_shortens_the_first(start):
    """Cooling a deployment again kept the shorter deadline: 1 s instead of 60 s."""
    arrived = threading.Barrier(2)

    def both_at_once(asked):
        wait = {"long": "60", "short": "1"}[asked.json()["user"]]
        arrived.wait(10)
        if wait == "1":
            wait_until(lambda: any(entry.get("target") == "p/m" for entry in gateway.log("circuit breaker open")),
                       "the long cooldown has begun")
        asked.send(failure(503, headers={"retry-after": wait}))
        return True

    p = start.provider(otherwise=both_at_once)
    gateway = start.gateway(init_for('use "circuit_breaker" { failures = 1, cooldown = 2 }', p=p))
    threads = [threading.Thread(target=gateway.chat, args=("m",), kwargs={"user": user}) for user in ("long", "short")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    refused = gateway.chat("m")
    assert refused.status == 503 and int(refused.headers["retry-after"]) > 50 and len(p.asked) == 2


def test_litellm_42432_a_caller_s_own_error_never_trips_a_breaker(start):
    """A provider's 400 became a synthetic 500, and a healthy deployment was cooled."""
    steps = [failure(status) for status in (400, 401, 403, 404, 413, 422)] * 2
    p = start.provider(*steps, otherwise=ok("fine"))
    gateway = start.gateway(init_for('use "circuit_breaker" { failures = 1, cooldown = 60 }', p=p))
    for step in steps:
        reply = gateway.chat("m")
        assert str(reply.status).encode() in step.split(b"\r\n")[0], "the provider's own status"
    assert gateway.chat("m").status == 200


def test_litellm_26015_nothing_loops_after_a_429_in_a_stream(start):
    """A 429 in the middle of a stream without fallbacks looped for ever at 100 % CPU."""
    error = event({"error": {"message": "slow down", "type": "rate_limit_error", "code": "429"}})
    p = start.provider(otherwise=stream(delta(content="some"), error))
    gateway = start.gateway(init_for(QUICK + ', use "fallback_model"', p=p))
    reply = gateway.chat("m", stream=True)
    assert reply.said() == "some" and reply.events()[-1]["error"]["message"] and len(p.asked) == 1


def test_litellm_19985_25285_attempts_are_never_multiplied(start):
    """A fallback began the retry cycle anew, num_retries multiplied with max_retries: up to twelve calls. One ledger
    counts all attempts of a call."""
    down = failure(503)
    p, q, r = (start.provider(otherwise=down) for _ in range(3))
    chain = QUICK + ', use "fallback_model" { models = { ["m"] = { "q/m", "r/m" } } }'
    gateway = start.gateway(init_for(chain, "max_attempts_per_call = 6,", p=p, q=q, r=r))
    reply = gateway.chat("m")
    assert reply.status == 503 and reply.attempts == 6
    assert len(p.asked) + len(q.asked) + len(r.asked) == 6 and len(p.asked) == 4


def test_litellm_7262_retries_of_the_client_s_sdk_are_counted(start):
    """An SDK that retries by itself multiplies what the gateway does: calls that say they are repeats use up the share."""
    release = threading.Event()
    p = start.provider(otherwise=lambda asked: (release.wait(10), asked.send(failure(503)), True)[-1])
    gateway = start.gateway(init_for('use "retry" { max_attempts = 2, base = 0, cap = 0 }', p=p))
    replies = []

    def call():
        replies.append(gateway.chat("m", headers={"x-stainless-retry-count": "1"}))

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(p.asked) == 5, "all five are open")
    release.set()
    for thread in threads:
        thread.join(20)
    assert all(reply.status == 503 for reply in replies)
    assert len(p.asked) <= 7, "five repeats of a client leave no or little room for ours"


def test_litellm_32574_each_failure_counts_for_its_own_target(start):
    """Failures were de-duplicated by the log: the second failing deployment was never cooled."""
    p, q = start.provider(otherwise=failure(503, "the same")), start.provider(otherwise=failure(503, "the same"))
    chain = 'use "circuit_breaker" { failures = 2, cooldown = 60 }, ' + fallback(m="q/m")
    gateway = start.gateway(init_for(chain, p=p, q=q))
    for _ in range(5):
        assert gateway.chat("m").status == 503
    assert len(p.asked) == 2 and len(q.asked) == 2


def test_apisix_13495_slow_failures_do_not_double_the_wait(start):
    """A failure that took long was tried again and took as long once more."""
    p = start.provider(then_hang(), otherwise=ok("never"))
    q = start.provider(otherwise=ok("from q"))
    chain = 'use "retry" { max_attempts = 3, base = 0.01, cap = 0.02, slow = 0.2 }, ' + fallback(m="q/m")
    init = init_for(chain, p=p, q=q).replace("first_byte = 5", "first_byte = 0.4")
    reply = start.gateway(init).chat("m")
    assert reply.status == 200 and reply.target == "q/m" and len(p.asked) == 1


def test_bifrost_2917_why_is_always_said(start):
    """ "Why is there no retry or fallback on this error?" : every decision is a line with policy, line and why, and one that
    was not carried out says because of what."""
    p = start.provider(otherwise=failure(503, headers={"retry-after": "100"}))
    gateway = start.gateway(init_for(QUICK, p=p))
    reply = gateway.chat("m")
    assert reply.status == 503 and reply.headers["retry-after"] == "100"
    told = gateway.wait_log("verdict not carried out", lambda entry: entry["call_id"] == reply.call_id)
    assert told["because"] == "the wait would pass the deadline" and told["policy"] == "retry" and told["line"] > 0


def test_agentgateway_1500_falls_back_also_without_a_retry_after(start):
    """Failover happened only if the provider named a time, and Vertex names none."""
    p, q = start.provider(otherwise=failure(429)), start.provider(otherwise=ok("from q"))
    chain = 'use "retry" { max_attempts = 2, base = 0.01, cap = 0.01 }, ' + fallback(m="q/m")
    gateway = start.gateway(init_for(chain, p=p, q=q))
    assert gateway.chat("m").target == "q/m" and len(p.asked) == 2


def test_langwatch_7027_a_target_that_only_refuses_is_left_for_its_fallback(start):
    """Four hours were routed into a target that answered 429 to everything, although a fallback was configured."""
    p = start.provider(otherwise=failure(429, "limit", headers={"retry-after": "3600"}))
    q = start.provider(otherwise=ok("from q"))
    chain = 'use "circuit_breaker" { failures = 3, count = { "rate_limit", "server" } }, ' + fallback(m="q/m")
    gateway = start.gateway(init_for(chain, p=p, q=q))
    assert all(gateway.chat("m").target == "q/m" for _ in range(10))
    assert len(p.asked) == 3


# --- Streams ----------------------------------------------------------------------------------------------------


BROKEN_STREAMS = {
    "cut": then_close(stream(delta(role="assistant", content=""), end=False)),
    "reset": then_reset(stream(delta(role="assistant", content=""), end=False)),
    "stalled": then_hang(stream(delta(role="assistant", content=""), end=False)),
    "unterminated": stream(delta(role="assistant", content="")),
    "error": stream(delta(role="assistant", content=""), event({"error": {"message": "x", "type": "server_error"}})),
}


@pytest.mark.parametrize("how", BROKEN_STREAMS)
def test_litellm_40404_a_broken_stream_reaches_the_fallback(start, how):
    """Cut, stalled and malformed streams made the client fail while the fallback was never asked."""
    p, q = start.provider(otherwise=BROKEN_STREAMS[how]), start.provider(otherwise=good_stream("from q"))
    gateway = start.gateway(init_for(fallback(m="q/m"), p=p, q=q))
    reply = gateway.chat("m", stream=True)
    assert reply.status == 200 and reply.said() == "from q" and reply.events()[-1] == "[DONE]"
    assert len(p.asked) == 1 and len(q.asked) == 1 and reply.text.count("assistant") == 1


@pytest.mark.parametrize("how", ["cut", "reset", "stalled", "unterminated"])
def test_portkey_1797_a_cut_answer_never_ends_cleanly(start, how):
    """The provider died in the middle of an answer, and the client saw a clean end of a 200."""
    half = stream(delta(content="half"), end=False)
    step = {"cut": then_close(half), "reset": then_reset(half), "stalled": then_hang(half),
            "unterminated": stream(delta(content="half"))}[how]
    reply = start.gateway(init_for(QUICK, p=start.provider(otherwise=step))).chat("m", stream=True)
    assert reply.said() == "half" and "[DONE]" not in reply.text
    assert reply.events()[-1]["error"]["message"], "an event that the SDK raises"


def test_bifrost_5395_an_error_after_lifecycle_events_is_recovered(start):
    """The Responses API says response.created first and insufficient_quota later: that counted as success."""
    created = event({"type": "response.created", "response": {"id": "r"}}, "response.created")
    failed = event({"type": "response.failed", "response": {"error": {
        "code": "insufficient_quota", "message": "You exceeded your current quota"}}}, "response.failed")
    text = event({"type": "response.output_text.delta", "delta": "from q"}, "response.output_text.delta")
    completed = event({"type": "response.completed", "response": {"id": "r"}}, "response.completed")
    p, q = start.provider(otherwise=stream(created, failed)), start.provider(otherwise=stream(created, text, completed))
    gateway = start.gateway(init_for(QUICK + ", " + fallback(m="q/m"), p=p, q=q))
    reply = gateway.post("/v1/responses", {"model": "m", "input": "hi", "stream": True})
    names = [name for name, _ in reply.named_events()]
    assert names == ["response.created", "response.output_text.delta", "response.completed"], reply
    assert len(p.asked) == 1, "billing is not tried again at the same target"


def test_bifrost_4788_the_attempt_after_a_failed_stream_is_whole(start):
    """A retry after an error in a stream was dead on arrival: a flag of the first attempt was left behind. So: every kind of
    failure, then a good attempt on the same call."""
    steps = list(BROKEN_STREAMS.values())
    p = start.provider(*steps[:3], good_stream("one"), *steps[3:], then_close(b""), good_stream("two"))
    gateway = start.gateway(init_for(QUICK, p=p))
    for text in ("one", "two"):
        reply = gateway.chat("m", stream=True)
        assert reply.said() == text and reply.events()[-1] == "[DONE]" and reply.attempts == 4, reply


def test_shenyu_6647_nothing_is_sent_twice(start):
    """A retried stream replayed all: the client got the first part and then everything once more."""
    p = start.provider(then_close(stream(delta(content="part one, "), end=False)), otherwise=good_stream("all of it"))
    gateway = start.gateway(init_for(QUICK + ", " + fallback(m="p/other"), p=p))
    reply = gateway.chat("m", stream=True)
    assert reply.said() == "part one, " and reply.events()[-1]["error"] and len(p.asked) == 1


def test_aisix_1003_events_end_at_any_pair_of_line_ends(start):
    """Streams were framed at \\n\\n only; the standard has \\r\\n\\r\\n and \\r\\r, too."""
    for end in (b"\r\n\r\n", b"\r\r", b"\n\r\n"):
        events = [part.rstrip(b"\n") + end for part in (delta(role="assistant", content=""), delta(content="all"), FINISH,
                                                         event("[DONE]"))]
        p = start.provider(otherwise=stream(*events))
        reply = start.gateway(init_for(QUICK, p=p)).chat("m", stream=True)
        assert reply.whole and reply.attempts == 1 and reply.body == b"".join(events), (end, reply)


def test_bifrost_7424_the_ledger_shows_every_attempt(start):
    """A list showed only the last provider: here each attempt is in Proxy-Status, headers and log."""
    p, q = start.provider(otherwise=failure(503)), start.provider(otherwise=ok("from q"))
    gateway = start.gateway(init_for(fallback(m="q/m"), p=p, q=q))
    reply = gateway.chat("m")
    assert reply.headers["parry-attempts"] == "2" and reply.headers["parry-target"] == "q/m"
    assert [v["verdict"] for v in gateway.verdicts(reply.call_id)] == ["fallback"]


# --- Meaning, credentials, reload --------------------------------------------------------------------------------


def test_openclaw_148236_the_same_code_means_opposite_things(start):
    """insufficient_quota: Alibaba throttles with it, OpenAI says that the money is gone."""
    error = answer(429, {"error": {"message": "limit", "type": "insufficient_quota", "code": "insufficient_quota"}})
    openai, alibaba = start.provider(otherwise=error), start.provider(error, ok("a moment later"))
    gateway = start.gateway(init_for(QUICK, p=openai))
    assert gateway.chat("m").status == 429 and len(openai.asked) == 1, "billing is never retried"
    gateway = start.gateway(init_for(QUICK, alibaba=alibaba))
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.attempts == 2


def test_kimi_code_1252_an_overloaded_engine_is_no_plan_limit(start):
    """KIMI answers 429 both for an overloaded engine and for a used-up plan; only the type tells which."""
    overloaded = answer(429, {"error": {"type": "engine_overloaded_error", "message": "busy"}})
    empty = answer(429, {"error": {"type": "exceeded_current_quota_error", "message": "check your plan"}})
    p = start.provider(overloaded, ok("a moment later"), empty)
    gateway = start.gateway(init_for(QUICK, p=p))
    assert gateway.chat("m").attempts == 2
    assert gateway.chat("m").attempts == 1


def test_codegraff_245_envoy_2603_concurrent_401s_renew_once(start):
    """Parallel forced refreshes revoked each other's tokens; a stale token was pushed after a rotation."""
    calls = 8
    lock, tokens = threading.Lock(), ["token-0"]
    waiting = threading.Barrier(calls)

    def serve(asked):
        if asked.path == "/token":
            with lock:
                tokens.append(f"token-{len(tokens)}")
            asked.send(answer(200, {"access_token": tokens[-1], "expires_in": 3600, "refresh_token": "next"}))
            return True
        given = asked.headers["authorization"]
        if given == "Bearer old-token":
            waiting.wait(10)  # all of them are refused at the same time
            asked.send(failure(401))
        else:
            asked.send(ok("fine") if given == "Bearer " + tokens[-1] else failure(401))
        return True

    p = start.provider(otherwise=serve)
    init = (f'provider "p" {{ base_url = "{p.url}/v1", dialect = "openai", auth = bearer(credential "c") }}\n'
            f'credential "c" {{ refresh_token = secret "REFRESH", access_token = secret "OLD",\n'
            f'  token_url = "{p.url}/token", grant = "oauth" }}\n'
            'route "/v1/*" { to = "p", chain = { use "token_refresh" } }\n')
    gateway = start.gateway(init, env={"REFRESH": "refresh-token", "OLD": "old-token"})
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(gateway.chat("m"))) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [reply.status for reply in replies] == [200] * calls
    assert sum(asked.path == "/token" for asked in p.asked) == 1


def test_litellm_30772_a_broken_edit_leaves_the_old_policies_serving(start):
    """No reload at all, or one that drained the old configuration before the new had proved itself."""
    p = start.provider(otherwise=ok("fine"))
    gateway = start.gateway(init_for(QUICK, p=p))
    before = gateway.status()["generation"]["id"]
    gateway.folder.write("retry.lua", "return policy { name = 'retry', params = }")
    refused = gateway.command("reload")
    assert refused.returncode == 1 and "retry.lua:1" in refused.stderr
    assert gateway.status()["generation"]["id"] == before and gateway.chat("m").status == 200


def test_litellm_21265_28259_scripts_are_contained(start):
    """A sandbox was escaped and an execution without a limit hung the fleet: a policy that tries costs its own verdict."""
    p = start.provider(otherwise=ok("fine"))
    folder = start.folder(init_for('use "attack"', p=p))
    folder.write("attack.lua", 'return policy { name = "attack", on_request = function(self, call)\n'
                               '  if call.model == "globals" then return os.execute("id") end\n'
                               '  if call.model == "load" then return load("return 1")() end\n'
                               '  if call.model == "spin" then while true do end end\n'
                               '  if call.model == "memory" then local t = {} while true do t[#t + 1] = ("x"):rep(9999) end end\n'
                               '  if call.model == "match" then return (("a"):rep(300)):find(".-.-.-b") end\n'
                               'end }\n')
    gateway = start.gateway(folder)
    for model in ("globals", "load", "spin", "memory", "match"):
        assert gateway.chat(model).status == 200
        gateway.wait_log("policy fault", lambda entry, m=model: "attack.lua" in json.dumps(entry))


def test_hermes_33174_a_refused_connection_reaches_the_fallback_and_is_seen(start):
    """Fallbacks answered in silence, and the wrong model was paid for unnoticed: the header and the log name who served."""
    port, holder = refused_port()
    q = start.provider(otherwise=ok("from q"))
    init = (f'provider "p" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}\n'
            f'provider "q" {{ base_url = "{q.url}/v1", dialect = "openai" }}\n'
            f'route "/v1/*" {{ to = "p", chain = {{ {fallback(m="q/m")} }} }}\n')
    gateway = start.gateway(init)
    reply = gateway.chat("m")
    assert reply.target == "q/m" and "network" in gateway.verdicts(reply.call_id)[0]["why"]
    done = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert done["target"] == "q/m" and done["attempts"] == 2
    holder.close()
