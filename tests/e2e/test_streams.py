"""Streams over real sockets, against a provider that is scripted byte by byte.

What other gateways' users complain about, each under the number of the complaint: an error in a 200 stream before
content is recovered and the client sees one clean answer; after content it is an error event of the client's dialect and
never a clean end; cut, stalled, malformed, unterminated and too slow streams are failures with codes of their own.
"""

import json
import threading

import pytest

from harness import (answer, chunk, connect, chat_bytes, delta, event, failure, send, stream, stream_head, then_close,
                     then_hang, then_reset, wait_until)

ROLE, HELLO = delta(role="assistant", content=""), delta(content="Hello")
STOP = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = event("[DONE]")
GOOD = stream(ROLE, HELLO, STOP, DONE)
ERROR = event({"error": {"message": "overloaded", "type": "service_unavailable_error", "param": None, "code": None}})
ERRCODE = event({"errcode": -2001, "errmsg": "request failed", "data": None})


def typed(kind, **more):
    return event({"type": kind, **more}, kind)


CREATED = typed("response.created", response={"id": "r", "error": None})
TEXT = typed("response.output_text.delta", delta="Hello")
COMPLETED = typed("response.completed", response={"id": "r", "error": None, "output": []})
QUOTA = event({"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota",
                                          "message": "You exceeded your current quota"}}, "error")
START = typed("message_start", message={"id": "m", "role": "assistant", "content": []})
BLOCK = typed("content_block_start", index=0, content_block={"type": "text", "text": ""})
SAYS = typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
MESSAGE_END = typed("message_delta", delta={"stop_reason": "end_turn"}) + typed("message_stop")
BUSY = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")

ALL = {  # path, dialect, lifecycle, content, end
    "openai": ("/v1/chat/completions", "openai", ROLE, HELLO, STOP + DONE),
    "kimi": ("/v1/chat/completions", "kimi", ROLE, HELLO, STOP + DONE),
    "responses": ("/v1/responses", "openai", CREATED, TEXT, COMPLETED),
    "anthropic": ("/v1/messages", "anthropic", START + BLOCK, SAYS, MESSAGE_END),
}


def init_for(provider, dialect, more="", chain='use "retry" { max_attempts = 4, base = 0.02, cap = 0.05 }, '
                                               'use "fallback_model"'):
    return f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "{dialect}" }}
route "/v1/*" {{ to = "p", deadline = 30, timeouts = {{ first_byte = 5, idle = 0.5 }}, {more}
                 chain = {{ {chain} }} }}
"""


def ask(gateway, path="/v1/chat/completions", **more):
    return gateway.post(path, {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}], **more})


def assert_error_event(family, reply):
    """The last event is the client dialect's error, and nothing says that the answer was whole."""
    name, last = reply.named_events()[-1]
    assert reply.status == 200 and reply.whole, reply
    assert "[DONE]" not in reply.text and "message_stop" not in reply.text and "response.completed" not in reply.text
    if family == "anthropic":
        assert (name, last["type"]) == ("error", "error") and last["error"]["type"] and last["error"]["message"], reply
    elif family == "responses":
        assert (name, last["type"]) == ("error", "error") and last["error"]["message"], reply
    else:
        assert name is None and last["error"]["message"] and last["error"]["type"], reply
    return last["error"]


def bad_beginnings(family):
    """What comes before content and is no answer, with the code that policies see."""
    _, _, lifecycle, content, end = ALL[family]
    report = {"openai": ERROR, "kimi": ERRCODE, "responses": QUOTA, "anthropic": BUSY}[family]
    return [
        stream(lifecycle, report),
        stream(lifecycle, report, end),
        stream(report),
        stream(lifecycle.replace(b"\n", b"\r\n"), report.replace(b"\n", b"\r\n")),
        stream(lifecycle.replace(b"\n", b"\r"), report.replace(b"\n", b"\r")),
        stream(lifecycle, report[:-1]),  # without its blank line
        answer(200, report),             # under the type of an ordinary answer
        stream(lifecycle),
        stream(),
        stream(b": ping\n\n", b": ping\n\n"),
        stream(lifecycle, content[:-20]),
        stream(lifecycle, b"data: {\"half\n\n", content, end),
        stream(b"<html><title>502</title></html>"),
        then_close(stream(lifecycle, end=False)),
        then_reset(stream(lifecycle, end=False)),
        then_hang(stream(lifecycle, end=False)),
    ]


@pytest.mark.parametrize("family", ALL)
def test_nothing_that_fails_before_content_reaches_the_client(start, family):
    """bifrost #5395 (lifecycle, then the error), #2917 (opened, and not a chunk), #4788 (attempt 2 must not inherit attempt
    1's end), LiteLLM #40404 (cut, stalled, malformed)."""
    path, dialect, lifecycle, content, end = ALL[family]
    bad = bad_beginnings(family)
    good = stream(lifecycle, content, end)
    steps = [step for beginning in bad for step in (beginning, good)]
    provider = start.provider(*steps)
    folder = start.folder(init_for(provider, dialect, chain='use "always"'))
    folder.write("always.lua", """
      return policy { name = "always", on_error = function(self, call, err)
        if call.target.attempts < 2 then return retry { after = 0.01, why = err.code } end
      end }""")
    gateway = start.gateway(folder)
    for number, beginning in enumerate(bad):
        reply = ask(gateway, path)
        assert reply.status == 200 and reply.whole and reply.attempts == 2, (number, reply)
        assert reply.body == lifecycle + content + end, number
    assert len(provider.asked) == len(steps) and not provider.problems


@pytest.mark.parametrize("family", ALL)
def test_what_fails_after_content_is_an_error_event_of_the_clients_dialect(start, family):
    """Portkey #1797: a cut stream must not end cleanly. shenyu #6647: and nothing is sent a second time."""
    path, dialect, lifecycle, content, end = ALL[family]
    begun = (lifecycle, content)
    report = {"openai": ERROR, "kimi": ERRCODE, "responses": QUOTA, "anthropic": BUSY}[family]
    cases = [
        (stream(*begun, report), None),
        (stream(*begun, report, end), None),
        (stream(*begun), "stream_unterminated"),
        (stream(*begun, content[:-20]), "stream_cut"),
        (then_close(stream(*begun, end=False)), "stream_cut"),
        (then_reset(stream(*begun, end=False)), "stream_cut"),
        (then_hang(stream(*begun, end=False)), "stream_stalled"),
        (stream(*begun, b"data: {\"half\n\n", content, end), "stream_malformed"),
    ]
    provider = start.provider(*[step for step, _ in cases])
    gateway = start.gateway(init_for(provider, dialect))
    for number, (_, code) in enumerate(cases):
        reply = ask(gateway, path)
        error = assert_error_event(family, reply)
        assert reply.body.startswith(lifecycle + content) and reply.body.count(content) == 1, (number, reply)
        assert reply.attempts == 1 and len(provider.asked) == number + 1
        if code and family != "anthropic":
            assert error["code"] == code, (number, reply)
        done = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
        assert done["outcome"] != "ok"


def test_an_untyped_error_reaches_an_anthropic_client_as_one(start):
    """Their SDK looks at events with a type in the `event:` line, and would end the stream cleanly."""
    bare = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    provider = start.provider(stream(START, BLOCK, SAYS, bare), stream(START, BLOCK, SAYS, BUSY))
    gateway = start.gateway(init_for(provider, "anthropic"))
    error = assert_error_event("anthropic", ask(gateway, "/v1/messages"))
    assert error == {"type": "overloaded_error", "message": "Overloaded"}
    assert ask(gateway, "/v1/messages").body.endswith(BUSY)  # its own passes byte for byte


def test_a_provider_that_cuts_everywhere_is_never_a_clean_end(start):
    """One answer, cut behind each of its events and inside each of them."""
    whole = ROLE + HELLO + delta(content=" again") + STOP + DONE
    places = [at for at in range(0, len(whole), 23)]
    provider = start.provider(*[stream(whole[:at]) if at else stream() for at in places])
    gateway = start.gateway(init_for(provider, "openai", chain=""))
    finished = len(whole) - len(DONE)
    for at in places:
        reply = ask(gateway)
        has_content = at >= len(ROLE + HELLO)
        assert reply.status == (200 if has_content else 502), (at, reply)
        if at < finished:
            assert "[DONE]" not in reply.text and '"code":"stream_' in reply.text.replace(": ", ":"), (at, reply)


def test_heartbeats_pass_and_do_not_commit(start):
    ping = b": ping\n\n"
    provider = start.provider(stream(ping, ROLE, ping, ERROR), stream(ping, ROLE, ping, HELLO, ping, STOP, DONE))
    gateway = start.gateway(init_for(provider, "openai"))
    reply = ask(gateway)
    assert reply.attempts == 2 and reply.body == ping + ROLE + ping + HELLO + ping + STOP + DONE


def test_an_event_of_a_megabyte_passes_and_what_follows_is_judged(start):
    """Such an event once made the rest of its stream unreadable, and a cut there a clean end."""
    image = event({"type": "image_generation.partial_image", "b64_json": "x" * 1_000_000})
    provider = start.provider(stream(image, DONE), stream(image, ROLE), stream(image[:600_000]))
    gateway = start.gateway(init_for(provider, "openai", chain=""))
    assert ask(gateway).body == image + DONE
    assert assert_error_event("openai", ask(gateway))["code"] == "stream_unterminated"
    reply = ask(gateway)
    assert not reply.whole and reply.body == image[:600_000], "half an event is no place for another"


# --- Too slow ------------------------------------------------------------------------------------------------


def slowly(*pieces):
    """The pieces, and then heartbeats for as long as somebody listens."""
    def step(asked):
        asked.send(stream_head() + b"".join(map(chunk, pieces)))
        while not asked.provider.stopping.wait(0.05):
            try:
                asked.send(chunk(b": ping\n\n"))
            except OSError:
                break
    return step


SLOW = "slow_stream = { events = 2, seconds = 1 %s },"
def test_a_stream_without_news_fails_over_though_it_keeps_beating(start):
    provider = start.provider(slowly(ROLE), GOOD)
    gateway = start.gateway(init_for(provider, "openai", SLOW % ""))
    reply = ask(gateway)
    assert reply.attempts == 2 and reply.body == ROLE + HELLO + STOP + DONE, reply
    assert [(v["code"], v["category"]) for v in gateway.verdicts(reply.call_id)] == [("stream_too_slow", "timeout")]


def test_a_slow_stream_is_cut_after_content_where_the_route_says_so(start):
    provider = start.provider(slowly(ROLE, HELLO, HELLO))
    gateway = start.gateway(init_for(provider, "openai", SLOW % ", cut = true"))
    reply = ask(gateway)
    assert assert_error_event("openai", reply)["code"] == "stream_too_slow"
    assert ": ping" in reply.text and reply.attempts == 1


# --- early_head ----------------------------------------------------------------------------------------------


def test_a_client_that_waits_gets_a_head_and_the_recovered_stream_behind_it(start):
    """No idle timeout on the way fires, and the attempts behind it are repeated as ever."""
    go_on = threading.Event()

    def late(asked):
        go_on.wait(20)
        asked.send(failure(503))

    provider = start.provider(late, GOOD)
    gateway = start.gateway(init_for(provider, "openai", "early_head = 0.2,"))
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m", stream=True))
        got = b""
        while b": waiting" not in got:
            got += made.recv(4096)
        head = got.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 200") and b"content-type: text/event-stream" in head
        assert b"parry-call-id" in head and b"parry-attempts" not in head
        go_on.set()
        while not got.endswith(b"0\r\n\r\n"):
            piece = made.recv(4096)
            assert piece, got
            got += piece
    assert HELLO in got and DONE in got and got.count(b"assistant") == 1
    assert len(provider.asked) == 2


@pytest.mark.parametrize("family", ALL)
def test_a_failure_behind_the_early_head_is_an_error_event(start, family):
    path, dialect, *_ = ALL[family]
    provider = start.provider(otherwise=then_hang())
    gateway = start.gateway(init_for(provider, dialect, "early_head = 0.1,").replace("deadline = 30", "deadline = 0.6"))
    reply = ask(gateway, path)
    assert reply.body.startswith(b": waiting for the provider\n\n"), reply
    assert_error_event(family, reply)
    plain = send(gateway.address, "POST", path, {"model": "m", "messages": []})
    assert plain.status == 504, "who wants no stream gets a status"


def test_a_client_that_leaves_behind_the_early_head_takes_its_attempt_along(start):
    provider = start.provider(otherwise=then_hang())
    gateway = start.gateway(init_for(provider, "openai", "early_head = 0.1,"))
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m", stream=True))
        got = b""
        while b": waiting" not in got:
            got += made.recv(4096)
    wait_until(lambda: provider.asked[0].left_at, "the attempt has ended")
    gateway.wait_log("call", lambda entry: entry["outcome"] == "cancelled")


# --- parry sse agrees ------------------------------------------------------------------------------------------


def test_the_gateway_and_parry_sse_agree_on_the_corpus(start):
    """Each stream of the corpus through the gateway: content and error events exactly where `parry sse` sees them."""
    import test_sse
    rows = [row for row in test_sse.CORPUS if row["dialect"] in ("openai", "kimi", "anthropic")
            and row.get("end", "eof") == "eof" and test_sse.stream_of(row)]
    for dialect in ("openai", "kimi", "anthropic"):
        mine = [row for row in rows if row["dialect"] == dialect]
        provider = start.provider(*[stream(test_sse.stream_of(row)) for row in mine])
        gateway = start.gateway(init_for(provider, dialect, chain=""))
        for row in mine:
            path = "/v1/messages" if dialect == "anthropic" else "/v1/chat/completions"
            reply = ask(gateway, path)
            whole = test_sse.stream_of(row)
            if row["verdict"] == "clean_end":
                assert reply.status == 200 and reply.body == whole and reply.whole, row["id"]
            elif row["safe_to_retry"]:
                assert reply.status >= 400 and "parry-attempts" in reply.headers, (row["id"], reply)
            else:
                assert reply.status == 200 and b"error" in reply.body.rpartition(b"data: ")[2], (row["id"], reply)
                assert json.loads(reply.body.rpartition(b"data: ")[2])["error"], row["id"]
        assert not provider.problems
