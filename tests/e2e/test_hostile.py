"""Hostile peers on both sides of a live gateway.

Shows: no answer reaches a client that did not ask for it; a body whose end is in doubt is no success; what a provider
repeats of our key in a header does not reach the client; a path cannot climb out of base_url; a client's words make no
malformed field; a client that resets is noticed at once; an answer encoded unasked hides neither an error nor a key.
"""

import gzip
import json
import threading
import time
import zlib

import pytest

from harness import (answer, chat_bytes, chunk, connect, delta, event, failure, ok, raw, reset, send, stream,
                     stream_head, then_close, then_hang, wait_until)

KEY = "sk-hostile-0123456789abcdef"


def gateway_for(start, provider):
    return start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
route "/v1/*" {{ to = "p", chain = {{ use "alert" }} }}
""", env={"KEY": KEY})


def test_an_answer_nobody_asked_for_is_given_to_nobody(start):
    """More than was announced, after the answer: the rest must not become the answer to the next client's request."""
    sent = []

    def too_much(asked):
        asked.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        time.sleep(0.1)  # or curl sees it with the head
        asked.send(ok("somebody else's"))
        sent.append(True)
        return True

    provider = start.provider(too_much, otherwise=ok("mine"))
    gateway = gateway_for(start, provider)
    assert gateway.chat("m").status == 204
    wait_until(lambda: sent, "the provider has sent too much")
    gateway.status()  # one turn of the loop
    for _ in range(3):
        reply = gateway.chat("m")
        assert reply.status == 200 and "mine" in reply.text, reply


@pytest.mark.parametrize("head", [b"Content-Length: 5\r\nContent-Length: 400000", b"Content-Length : 5",
                                  b"Content-Length: +5", b"Content-Length: 0x5"])
def test_a_body_whose_end_is_in_doubt_is_no_success(start, head):
    provider = start.provider(then_close(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + b"x" * 400000))
    reply = gateway_for(start, provider).chat("m")
    assert reply.status == 502 and reply.json()["error"]["code"] == "network", reply


def test_a_length_beside_chunks_counts_for_nothing(start):
    body = b"x" * 400000
    provider = start.provider(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nTransfer-Encoding: chunked\r\n\r\n"
                              + chunk(body) + b"0\r\n\r\n")
    reply = gateway_for(start, provider).chat("m")
    assert reply.status == 200 and reply.whole and reply.body == body


def test_our_key_in_a_provider_s_field_stays_here(start):
    provider = start.provider(
        answer(200, {}, {"x-echo": f"Bearer {KEY}"}), failure(400, headers={"x-echo": KEY}),
        answer(302, b"", {"location": f"https://x.example/?key={KEY}"}))
    gateway = gateway_for(start, provider)
    for status in (200, 400, 302):
        reply = gateway.chat("m")
        assert reply.status == status and KEY not in str(reply.headers) + reply.text, reply
        assert "***" in str(reply.headers)


@pytest.mark.parametrize("path", ["/v1/..", "/v1/../admin", "/v1/./x", "/v1/a/../../admin", "/v1/%2e%2E/admin",
                                  "/v1/.%2e/admin", "/v1/..%2fadmin", "/v1/a%2f..%5cb", "/v1/..;a=b/admin"])
def test_no_path_climbs_out_of_base_url(start, path):
    provider = start.provider(otherwise=ok())
    gateway = gateway_for(start, provider)
    reply = send(gateway.address, "GET", path)
    assert reply.status == 400 and reply.json()["error"]["type"] == "invalid_request_error", reply
    assert not provider.asked


def test_dots_that_climb_nowhere_pass(start):
    provider = start.provider(otherwise=ok())
    gateway = gateway_for(start, provider)
    for path in ("/v1/...", "/v1/a..b", "/v1/.well-known", "/v1/models/x%2fgpt-4.1", "/v1/x;.."):
        assert send(gateway.address, "GET", path).status == 200
        assert provider.asked[-1].path == path
    assert send(gateway.address, "GET", "/v1/x?a=../b").status == 200


@pytest.mark.parametrize("model", ["a\x01b", "a\x7fb", "a\r\nx-evil: 1", "a\x1b[31m"])
def test_a_model_s_control_bytes_are_in_no_field(start, model):
    gateway = gateway_for(start, start.provider(otherwise=ok()))
    head = raw(gateway.address, chat_bytes(model, {"connection": "close"})).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 200 ") and b"\r\nparry-target: p/a?" in head, head
    assert not any(byte < 0x20 or byte == 0x7F for line in head.split(b"\r\n") for byte in line), head
    assert b"\r\nx-evil" not in head.lower()


@pytest.mark.parametrize("size", [None, 60])
def test_a_reset_right_behind_a_request_is_noticed(start, size):
    """Together with the bytes that came before it; `size`: of the request, when not all of it."""
    provider = start.provider(otherwise=then_hang())
    gateway = gateway_for(start, provider)
    for _ in range(10):
        made = connect(gateway.address)
        made.sendall(chat_bytes("m") * 3 if size is None else chat_bytes("m")[:-size])
        reset(made)
    began = time.monotonic()
    gateway.wait_idle()
    assert time.monotonic() - began < 5


# --- Encoded answers: we ask for none --------------------------------------------------------------------------


def encoded(status, body, coding="gzip", pack=gzip.compress):
    return answer(status, pack(body), {"content-encoding": coding, "content-type": "application/json"})


def test_an_encoded_error_is_read_and_scrubbed(start):
    body = json.dumps({"error": {"message": f"wrong key {KEY}", "type": "invalid_request_error"}}).encode()
    provider = start.provider(encoded(401, body), encoded(401, body, "deflate", zlib.compress))
    gateway = gateway_for(start, provider)
    for _ in range(2):
        reply = gateway.chat("m")
        assert reply.status == 401 and "content-encoding" not in reply.headers, reply
        assert reply.json()["error"]["message"] == "wrong key ***", reply


def test_an_error_that_nobody_can_read_is_not_passed_on(start):
    bomb = gzip.compress(bytes(50_000_000))
    provider = start.provider(encoded(400, KEY.encode(), "br", bytes), encoded(400, bomb, "gzip", bytes),
                              encoded(400, KEY.encode(), "gzip", bytes))
    gateway = gateway_for(start, provider)
    for _ in range(3):
        reply = gateway.chat("m")
        assert reply.status == 400 and KEY not in reply.text and len(reply.body) < 1000, reply
        assert reply.json()["error"]["code"] and "content-encoding" not in reply.headers


def test_a_good_encoded_answer_passes_as_it_is(start):
    packed = gzip.compress(b'{"fine": true}')
    provider = start.provider(encoded(200, packed, "gzip", bytes), encoded(200, b"\x1b\x00", "br", bytes))
    gateway = gateway_for(start, provider)
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.body == packed and reply.headers["content-encoding"] == "gzip"
    reply = gateway.chat("m")
    assert reply.status == 200 and reply.body == b"\x1b\x00" and reply.headers["content-encoding"] == "br"


def test_an_encoded_stream_arrives_decoded_and_at_once(start):
    going = threading.Event()

    def step(asked):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        head = stream_head().replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        asked.send(head + chunk(packer.compress(delta(content="one")) + packer.flush(zlib.Z_SYNC_FLUSH)))
        assert going.wait(20)
        rest = packer.compress(delta(content="two") + event("[DONE]")) + packer.flush()
        asked.send(chunk(rest) + b"0\r\n\r\n")
        return True

    gateway = gateway_for(start, start.provider(step))
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m", {"connection": "close"}, stream=True))
        got = b""
        while b"one" not in got:  # before the provider goes on
            got += made.recv(65536)
        assert b"two" not in got and b"content-encoding" not in got.lower()
        going.set()
        while piece := made.recv(65536):
            got += piece
    assert b"two" in got and b"[DONE]" in got


def test_an_encoded_error_at_the_start_of_a_stream_recovers(start):
    def step(asked):
        head = stream_head().replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        asked.send(head + chunk(gzip.compress(event({"error": {"message": "busy", "type": "server_error"}}))) +
                   b"0\r\n\r\n")
        return True

    provider = start.provider(step, stream(delta(content="fine"), event("[DONE]")))
    gateway = start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", chain = {{ use "retry" {{ max_attempts = 3, base = 0.01, cap = 0.02 }} }} }}
""")
    reply = gateway.chat("m", stream=True)
    assert reply.status == 200 and reply.said() == "fine" and reply.attempts == 2, reply
