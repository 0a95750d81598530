"""Calls recover, over real sockets, through `parry serve`.

Shows, for the OpenAI, Anthropic and KIMI dialects, plain and streaming: 429 with Retry-After, 5xx, a reset,
silence, an expired token, an error inside a 200, an error or a cut before content are recovered, and the client
sees one clean answer; what must not be repeated is sent once; what breaks after content ends honestly; and what
parry says about it (parry-attempts, parry-target, parry-call-id, Proxy-Status, the log) is true.
"""

import json
import threading

import pytest

from harness import (Reply, answer, chain, chat_bytes, chunk, connect, delta, event, failure, ok, stream,
                     then_close, then_hang, then_reset, wait_until)

SECRETS = {"SIM_KEY": "sk-recover-0123456789", "OLD_TOKEN": "old-access-token-1", "REFRESH": "first-refresh-token"}


def init_for(sim, kimi_sim):
    policies = chain('models = { ["down"] = { "sim/spare" }, ["far"] = { "kimi/kimi-spare" } }, '
                     'categories = { context_length = { ["small"] = { "sim/large" } } }')
    return f"""
provider "sim" {{ base_url = "{sim.url}/v1", dialect = "openai", auth = bearer(secret "SIM_KEY") }}
provider "kimi" {{ base_url = "{sim.url}/kimi/v1", dialect = "kimi", auth = bearer(secret "SIM_KEY") }}
provider "claude" {{ base_url = "{sim.url}/v1/messages", dialect = "anthropic",
                     auth = header("x-api-key", secret "SIM_KEY") }}
provider "auth" {{ base_url = "{sim.url}/auth/v1", dialect = "openai", auth = bearer(credential "c") }}
provider "kimi-auth" {{ base_url = "{kimi_sim.url}/kimi-auth/v1", dialect = "kimi", auth = bearer(credential "k") }}
credential "c" {{ refresh_token = secret "REFRESH", access_token = secret "OLD_TOKEN",
                  token_url = "{sim.url}/oauth/token", grant = "oauth" }}
credential "k" {{ refresh_token = secret "REFRESH", access_token = secret "OLD_TOKEN",
                  token_url = "{kimi_sim.url}/token/refresh", grant = "kimi" }}
route "/v1/*" {{
  to = by_model {{ ["kimi-*"] = "kimi", ["auth-*"] = "auth", ["kauth-*"] = "kimi-auth", ["*"] = "sim" }},
  deadline = 20, timeouts = {{ first_byte = 1, idle = 1 }}, chain = {policies},
}}
route "/v1/messages*" {{ to = "claude", deadline = 20, timeouts = {{ first_byte = 1, idle = 1 }}, chain = {policies} }}
"""


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim("--fault", "down=code=503", "--fault", "far=code=503")


@pytest.fixture(scope="module")
def kimi_sim(start_once):
    return start_once.sim()


@pytest.fixture(scope="module")
def gateway(start_once, sim, kimi_sim):
    return start_once.gateway(init_for(sim, kimi_sim), env=SECRETS)


keys = iter(range(1, 100000))


def ask(gateway, family, fault, streaming, model=None, headers=None):
    """One request of that family whose provider fails as `fault` says. Returns (reply, text)."""
    path, name = {"openai": ("/v1/chat/completions", "gpt-x"), "kimi": ("/v1/chat/completions", "kimi-k2"),
                  "anthropic": ("/v1/messages", "claude-x")}[family]
    body = {"model": model or name, "messages": [{"role": "user", "content": "héllo 你好"}]}
    if family == "anthropic":
        body["max_tokens"] = 100
    if streaming:
        body["stream"] = True
    all_headers = {"x-sim-fault": fault, "x-sim-key": f"k{next(keys)}", **(headers or {})}
    return gateway.post(path, body, all_headers)


def text_of(family, streaming, reply):
    if family == "anthropic" and streaming:
        return "".join(e["delta"].get("text", "") for e in reply.events() if e["type"] == "content_block_delta")
    if family == "anthropic":
        return reply.json()["content"][0]["text"]
    return reply.said() if streaming else reply.json()["choices"][0]["message"]["content"]


def assert_clean(family, streaming, reply):
    """One whole answer, as if nothing had happened."""
    assert reply.status == 200 and reply.whole, reply
    assert text_of(family, streaming, reply) == "héllo 你好", reply
    if streaming and family == "anthropic":
        names = [name for name, _ in reply.named_events()]
        assert names.count("message_start") == 1 and names[-1] == "message_stop", names
    elif streaming:
        assert reply.events()[-1] == "[DONE]" and reply.text.count('"role":"assistant"') == 1, reply


FAULTS = ["503", "500", "529", "reset", "hang", "cut", "error-200", "garbage", "html-502"]


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("family", ["openai", "anthropic", "kimi"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_is_recovered(gateway, fault, family, streaming):
    reply = ask(gateway, family, f"code={fault};times=1", streaming)
    assert_clean(family, streaming, reply)
    assert reply.attempts == 2
    assert reply.target == {"openai": "sim/gpt-x", "anthropic": "claude/claude-x", "kimi": "kimi/kimi-k2"}[family]
    verdicts = gateway.verdicts(reply.call_id)
    assert [v["verdict"] for v in verdicts] == ["retry"], verdicts
    assert verdicts[0]["policy"] == "retry" and verdicts[0]["why"] and verdicts[0]["line"] > 0
    done = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert (done["outcome"], done["attempts"], done["target"]) == ("ok", 2, reply.target)


@pytest.mark.parametrize("code", ["-1000", "-2001"])
def test_kimi_errors_inside_a_200_are_recovered(gateway, code):
    reply = ask(gateway, "kimi", f"code={code};times=2", False)
    assert_clean("kimi", False, reply)
    assert reply.attempts == 3


@pytest.mark.parametrize("family", ["openai", "anthropic"])
def test_waits_as_long_as_the_server_says(gateway, family):
    reply = ask(gateway, family, "code=429;retry-after=1;times=1", False)
    assert_clean(family, False, reply)
    assert reply.attempts == 2 and 1.0 <= reply.seconds < 4, reply.seconds


def test_retry_after_ms_counts_before_retry_after(gateway):
    reply = ask(gateway, "openai", "code=429;retry-after=15;retry-after-ms=300;times=1", False)
    assert_clean("openai", False, reply)
    assert 0.3 <= reply.seconds < 5, reply.seconds


def test_a_wait_beyond_the_deadline_fails_now_and_passes_retry_after_on(gateway):
    reply = ask(gateway, "openai", "code=429;retry-after=120", False)
    assert reply.status == 429 and reply.attempts == 1 and reply.seconds < 5
    assert reply.headers["retry-after"] == "120"


@pytest.mark.parametrize("model", ["auth-x", "kauth-x"], ids=["oauth", "kimi"])
@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
def test_an_expired_token_is_renewed_and_the_call_goes_on(gateway, sim, kimi_sim, model, streaming):
    provider = sim if model == "auth-x" else kimi_sim
    provider.control("POST", "/sim/expire")
    before = provider.stats()["renewals"]
    reply = ask(gateway, "openai", "", streaming, model=model)
    assert_clean("openai", streaming, reply)
    assert reply.attempts == 2 and provider.stats()["renewals"] == before + 1
    assert [v["verdict"] for v in gateway.verdicts(reply.call_id)] == ["renew"]


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
def test_falls_back_to_another_model(gateway, sim, streaming):
    reply = gateway.post("/v1/chat/completions", {"stream": streaming, "model": "down", "messages": [
        {"role": "user", "content": "héllo 你好"}]})
    assert_clean("openai", streaming, reply)
    assert reply.target == "sim/spare" and reply.attempts == 5  # four of retry's, one at the spare
    assert json.loads(sim.last_body())["model"] == "spare"
    verdicts = gateway.verdicts(reply.call_id)
    assert [v["verdict"] for v in verdicts] == ["retry"] * 3 + ["fallback"]
    assert verdicts[-1]["policy"] == "fallback_model" and verdicts[-1]["to"] == "sim/spare"


def test_falls_back_to_another_provider_of_a_family(gateway):
    reply = gateway.chat("far")
    assert reply.status == 200 and reply.target == "kimi/kimi-spare"


def test_a_prompt_that_is_too_long_goes_to_the_larger_model_at_once(gateway):
    reply = ask(gateway, "openai", "code=context;times=1", False, model="small")
    assert_clean("openai", False, reply)
    assert reply.target == "sim/large" and reply.attempts == 2


@pytest.mark.parametrize("family,fault,status", [
    (family, str(status), status) for family in ("openai", "anthropic") for status in (400, 401, 403, 404)
] + [("openai", "quota", 429), ("openai", "balance", 402), ("openai", "frozen", 403)])
def test_what_waiting_does_not_mend_is_sent_once_and_passed_on(gateway, sim, family, fault, status):
    before = sim.stats()["total"]
    reply = ask(gateway, family, f"code={fault}", False)
    assert reply.status == status and reply.attempts == 1 and reply.whole
    assert sim.stats()["total"] == before + 1
    assert ("type" in reply.json()) == (family == "anthropic")
    assert "error" in reply.json() and f"received-status={status}" in reply.headers["proxy-status"]


def test_when_all_attempts_fail_the_provider_s_own_error_is_the_answer(gateway):
    reply = ask(gateway, "openai", "code=503", False, model="hopeless")
    assert reply.status == 503 and reply.attempts == 4
    assert reply.json()["error"]["code"] == "overloaded", reply


def test_an_error_inside_a_200_never_reaches_the_client_as_a_200(gateway):
    reply = ask(gateway, "kimi", "code=-2006", False)
    assert reply.status == 402 and reply.attempts == 1, reply
    assert reply.json()["error"]["code"] == "insufficient_quota" and "errcode" not in reply.json(), reply


# --- After content -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["openai", "anthropic", "kimi"])
@pytest.mark.parametrize("fault", ["cut-after", "stall-after", "error-after"])
def test_a_stream_that_breaks_after_content_ends_with_an_error_event(gateway, sim, family, fault):
    before = sim.stats()["total"]
    reply = ask(gateway, family, f"code={fault}", True)
    assert reply.status == 200 and reply.attempts == 1 and sim.stats()["total"] == before + 1
    name, last = reply.named_events()[-1]
    assert reply.whole, "the error event is the end; the connection need not break"
    assert "[DONE]" not in reply.text and "message_stop" not in reply.text
    assert text_of(family, True, strip_last(reply)), "the client has some content"
    if family == "anthropic":
        assert name == "error" and last["type"] == "error" and last["error"]["message"]
    else:  # KIMI's errcode frame, too: its client speaks OpenAI's dialect, and would see a clean end
        assert last["error"]["message"] and last["error"]["type"], last


def strip_last(reply):
    """The reply without its last event."""
    return Reply(reply.status, reply.headers, reply.body.rstrip(b"\n").rpartition(b"\n\n")[0] + b"\n\n", True, 0)


# --- Byte by byte, with a scripted provider --------------------------------------------------------------------


def scripted_init(provider, fallback=""):
    return f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", auth = bearer(secret "SIM_KEY") }}
route "/v1/*" {{ to = "p", deadline = 20, timeouts = {{ first_byte = 5, idle = 1 }}, chain = {chain(fallback)} }}
"""


def test_every_attempt_carries_the_same_bytes_and_the_same_idempotency_key(start):
    provider = start.provider(failure(503), then_reset(), then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), ok("done"))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    body = b'{"model":"m",\t"messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],"seed":9007199254740993}'
    reply = gateway.post("/v1/chat/completions?x=%2F&y", body,
                         {"content-type": "application/json", "idempotency-key": "once", "x-mine": "yes"})
    assert reply.status == 200 and reply.attempts == 4, reply
    assert [asked.body for asked in provider.asked] == [body] * 4
    for asked in provider.asked:
        assert asked.path == "/v1/chat/completions?x=%2F&y" and asked.headers["x-mine"] == "yes"
        assert asked.headers["idempotency-key"] == "once"
        assert asked.headers["authorization"] == "Bearer " + SECRETS["SIM_KEY"]
        assert asked.headers["accept-encoding"] == "identity"


def test_a_change_of_model_touches_no_other_byte(start):
    provider = start.provider(failure(404, code="model_not_found"), ok("done"))
    gateway = start.gateway(scripted_init(provider, fallback='models = { ["m"] = { "p/other" } }'), env=SECRETS)
    body = b' {"seed":9007199254740993, "model" : "m" ,"messages":[{"role":"user","content":"model"}],"x":1.10e+1}\n'
    reply = gateway.post("/v1/chat/completions", body, {"content-type": "application/json"})
    assert reply.status == 200 and reply.target == "p/other"
    assert provider.asked[0].body == body
    assert provider.asked[1].body == body.replace(b'"model" : "m"', b'"model" : "other"')


def test_nothing_of_a_stream_that_failed_before_content_reaches_the_client(start):
    role = delta(role="assistant", content="")
    provider = start.provider(
        stream(b": comment\n\n", role, event({"error": {"message": "overloaded", "type": "overloaded_error"}})),
        then_close(stream(role, end=False)),
        then_reset(stream(role, end=False)),
        stream(role, delta(content="from the "), delta(content="fourth"), event("[DONE]")))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    reply = gateway.chat("m", stream=True)
    assert reply.status == 200 and reply.whole and reply.attempts == 4
    assert reply.body == role + delta(content="from the ") + delta(content="fourth") + event("[DONE]"), reply


def test_a_clean_end_without_content_is_no_success(start):
    provider = start.provider(stream(delta(role="assistant", content="")),
                              stream(delta(content="now"), event("[DONE]")))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    reply = gateway.chat("m", stream=True)
    assert reply.status == 200 and reply.said() == "now" and reply.attempts == 2, reply


def test_a_cut_stream_whose_content_is_known_ends_with_an_error_and_a_finished_one_does_not(start):
    finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    provider = start.provider(then_close(stream(delta(content="half"), end=False)),
                              then_close(stream(delta(content="all"), finish, event("[DONE]"), end=False)))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    cut = gateway.chat("m", stream=True)
    assert cut.said() == "half" and cut.events()[-1]["error"]["message"] and "[DONE]" not in cut.text
    done = gateway.chat("m", stream=True)
    assert done.said() == "all" and done.events()[-1] == "[DONE]" and done.whole, done


def test_a_short_body_that_is_cut_is_tried_again(start):
    whole = ok("whole")
    provider = start.provider(then_close(whole[:-20]), whole)
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.whole and reply.attempts == 2
    assert reply.body == whole.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("broken_by", ["close", "reset"])
def test_a_long_body_that_is_cut_never_ends_cleanly(start, chunked, broken_by):
    """Past the hold limit the client has content: no other attempt, and no clean end either."""
    piece = b"x" * 600_000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    half = (head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(piece) if chunked
            else head + b"Content-Length: 900000\r\n\r\n" + piece)

    def wait_then_reset(asked):
        asked.send(half)
        got_some.wait(10)
        then_reset()(asked)

    got_some = threading.Event()
    provider = start.provider(then_close(half) if broken_by == "close" else wait_then_reset)
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m"))
        got = b""
        while piece := made.recv(65536):
            got += piece
            if len(got) > 300_000:
                got_some.set()
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and len(body) > 256 * 1024
    assert b"parry-attempts: 1" in head and len(provider.asked) == 1
    if b"chunked" in head.lower():
        assert not body.endswith(b"0\r\n\r\n")
    else:
        assert len(body) < 900_000


def test_x_should_retry_false_forbids_and_true_allows(start):
    provider = start.provider(failure(503, headers={"x-should-retry": "false"}),
                              failure(400, headers={"x-should-retry": "true"}), ok("after all"))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    forbidden = gateway.chat("m")
    assert forbidden.status == 503 and forbidden.attempts == 1
    allowed = gateway.chat("m")
    assert allowed.status == 200 and allowed.attempts == 2


def test_the_deadline_ends_a_call_whatever_its_provider_does(start):
    provider = start.provider(otherwise=then_hang())
    init = scripted_init(provider).replace("deadline = 20", "deadline = 1.5")
    gateway = start.gateway(init, env=SECRETS)
    reply = gateway.chat("m")
    assert reply.status == 504 and 1.4 <= reply.seconds < 5, (reply.seconds, reply)
    assert reply.json()["error"]["type"] == "timeout_error"
    assert "error=" in reply.headers["proxy-status"]
    wait_until(lambda: provider.asked[0].left_at, "the provider sees that it is no longer asked")


def test_a_request_that_must_not_be_repeated_is_sent_once(start):
    """POST to an unknown path is not known to be repeatable: retried only when nothing was sent or it was refused."""
    provider = start.provider(then_reset(), failure(503, headers={"retry-after": "0"}), ok("later"))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    once = gateway.post("/v1/fine_tuning/jobs", {"model": "m"})
    assert once.status == 502 and once.attempts == 1 and len(provider.asked) == 1, once
    refused = gateway.post("/v1/fine_tuning/jobs", {"model": "m"})
    assert refused.status == 200 and refused.attempts == 2, refused


def test_headers_of_one_hop_and_of_the_client_s_own_login_stop_here(start):
    provider = start.provider(answer(200, {}, {"x-trace": "t1", "connection": "x-hop", "x-hop": "no",
                                               "set-cookie": "a=b"}))
    gateway = start.gateway(scripted_init(provider), env=SECRETS)
    reply = gateway.chat("m", {"authorization": "Bearer client-own", "x-api-key": "client-own",
                               "cookie": "c=client-own", "te": "trailers", "connection": "x-secret-hop",
                               "x-secret-hop": "1"})
    asked = provider.asked[0].headers
    assert "client-own" not in str(asked) and "x-secret-hop" not in asked and "te" not in asked
    assert reply.headers["x-trace"] == "t1" and "x-hop" not in reply.headers and "set-cookie" not in reply.headers
