"""Where things go wrong around a call, and who must not suffer from it.

Shows: a dead provider, a full queue, a missing secret and an unreachable webhook give a clear error to client and
log; a client that leaves in any state (request on its way, stream, backoff, queue, renewal) is noticed within 0.5
s and leaves nothing behind; malformed and oversized requests are refused in the client's dialect; probes, status
and metrics; a reader that does not read costs no memory; ending drains; secrets are in nothing that leaves the
process.
"""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import time

import pytest

from harness import (answer, chain, chat_bytes, connect, delta, event, failure, ok, raw, refused_port, send, stream,
                     then_hang, wait_until)

SECRETS = {"KEY": "sk-edges-0123456789abcdef", "OLD_TOKEN": "old-access-token-2", "REFRESH": "refresh-token-2"}
LEAVE = 0.5  # seconds within which a client's leaving must be felt


def init_for(url, policies=None, extra="", route_extra=""):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "claude" {{ base_url = "{url}/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }}
{extra}
route "/v1/*" {{ to = "p", deadline = 30, {route_extra} chain = {policies or chain()} }}
route "/v1/messages*" {{ to = "claude", deadline = 30, chain = {policies or chain()} }}
"""


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim()


@pytest.fixture(scope="module")
def gateway(start_once, sim):
    return start_once.gateway(init_for(sim.url), env=SECRETS)


# --- Failures around the provider ----------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
def test_a_dead_provider_is_a_clear_error(start, streaming):
    port, holder = refused_port()
    with holder:
        gateway = start.gateway(init_for(f"http://127.0.0.1:{port}"), env=SECRETS)
        reply = gateway.chat("m", stream=streaming)
        assert reply.status == 502 and reply.attempts == 4 and reply.whole and reply.seconds < 10, reply
        assert reply.json()["error"]["message"] and reply.headers["content-type"] == "application/json"
        assert "error=connection_" in reply.headers["proxy-status"], reply
        last = gateway.wait_log("call")
        assert last["outcome"] == "network" and last["status"] == 502
        claude = gateway.post("/v1/messages", {"model": "c", "max_tokens": 1, "messages": []})
        assert claude.status == 502 and claude.json()["type"] == "error", claude


def test_a_missing_secret_fails_only_the_calls_that_need_it(start, sim):
    extra = f'provider "bare" {{ base_url = "{sim.url}/v1", dialect = "openai", auth = bearer(secret "NOT_THERE") }}'
    init = init_for(sim.url, extra=extra).replace('to = "p"', 'to = by_model { ["bare-*"] = "bare", ["*"] = "p" }')
    gateway = start.gateway(init, env=SECRETS)
    assert any("NOT_THERE" in line for line in gateway.lines), "a warning at the start"
    reply = gateway.chat("bare-m")
    assert reply.status == 401 and reply.attempts == 0, reply
    assert "NOT_THERE" in reply.text or "secret" in reply.text, "the message says what is missing"
    assert gateway.wait_log("call", lambda e: e["call_id"] == reply.call_id)["outcome"] == "auth"
    assert gateway.chat("m").status == 200


HOLD = """
return policy {
  name = "one_at_a_time",
  on_attempt = function(self, call) return hold { key = "all", slots = 1, max_wait = %s } end,
}
"""


def holding(start, provider, max_wait=20.0):
    folder = start.folder(init_for(provider.url, '{ use "one_at_a_time" }'))
    folder.write("one_at_a_time.lua", HOLD % max_wait)
    return start.gateway(folder, env=SECRETS)


def test_a_place_that_does_not_come_in_time_is_a_clear_error(start):
    provider = start.provider(then_hang())
    gateway = holding(start, provider, 0.3)
    with connect(gateway.address) as holder:
        holder.sendall(chat_bytes("m"))
        wait_until(lambda: provider.asked, "the place is taken")
        reply = gateway.chat("m")
        assert reply.status == 429 and 0.2 < reply.seconds < 5 and reply.attempts == 0, reply
        assert reply.json()["error"]["type"] == "rate_limit_error"


def test_a_full_queue_refuses_at_once_and_serves_in_order_afterwards(start):
    waiting = 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    provider = start.provider(then_hang(), otherwise=ok("served"))
    gateway = holding(start, provider)
    holder = connect(gateway.address)
    holder.sendall(chat_bytes("m"))
    wait_until(lambda: provider.asked, "the place is taken")
    with contextlib.ExitStack() as line:
        clients = []
        for number in range(waiting):
            client = line.enter_context(connect(gateway.address))
            client.sendall(chat_bytes(f"m{number}"))
            clients.append(client)
            if number < 50:  # they may be on different workers: only then is the order of sending that of coming
                wait_until(lambda: gateway.status()["waiting_for_a_place"] == number + 1, "it is in line")
        wait_until(lambda: gateway.status()["waiting_for_a_place"] == waiting, "the line is full")
        reply = gateway.chat("m")
        assert reply.status == 429 and reply.seconds < 5, reply
        holder.close()
        assert b"served" in clients[0].recv(65536)
        for client in clients[50:]:
            client.close()
        for number, client in enumerate(clients[1:50]):
            assert b"served" in client.recv(65536), number
    gateway.wait_idle()
    order = [asked.json()["model"] for asked in provider.asked[1:51]]
    assert order == [f"m{number}" for number in range(50)], "first come, first served"


ALERTING = """{ use "alert" { to = "ops", rules = { { category = "server", count = 1, window = 60 } } } }"""


def test_an_unreachable_webhook_delays_no_call_and_no_end(start):
    provider = start.provider(otherwise=failure(500))
    port, holder = refused_port()
    with holder:
        gateway = start.gateway(init_for(provider.url, ALERTING, 'sink "ops" { webhook = secret "OPS" }'),
                                env={**SECRETS, "OPS": f"http://127.0.0.1:{port}/hook-secret-path"})
        reply = gateway.chat("m")
        assert reply.status == 500 and reply.seconds < 2
        wait_until(lambda: gateway.status()["alerts"]["queued"] == 1, "the alert waits for its next try")
        assert gateway.chat("m").seconds < 2
        began = time.monotonic()
        gateway.stop()
        assert time.monotonic() - began < 5 and "hook-secret-path" not in gateway.output


def test_a_webhook_that_refuses_is_told_in_the_log_without_its_address(start):
    provider = start.provider(otherwise=failure(500))
    webhook = start.provider(otherwise=answer(404, {}))
    gateway = start.gateway(init_for(provider.url, ALERTING, 'sink "ops" { webhook = secret "OPS" }'),
                            env={**SECRETS, "OPS": webhook.url + "/hook-secret-path"})
    gateway.chat("m")
    lost = gateway.wait_log("alert not delivered")
    assert lost["sink"] == "ops" and "404" in lost["why"], lost
    assert "hook-secret-path" not in gateway.output + json.dumps(gateway.status())


# --- Clients that leave -------------------------------------------------------------------------------------------


def leave(made, how):
    if how == "reset":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if how == "half":
        made.shutdown(socket.SHUT_WR)
        return
    made.close()


def assert_gone(gateway, provider=None):
    """The call has ended, and the provider was told."""
    left = time.monotonic()
    wait_until(lambda: gateway.status()["calls_open"] == 0, "the call of the client that left has ended", LEAVE)
    if provider:
        wait_until(lambda: provider.asked[-1].left_at, "the provider is told", LEAVE)
        assert provider.asked[-1].left_at - left < LEAVE
    assert gateway.wait_log("call")["outcome"] == "cancelled"


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("state", ["waiting for the head", "head held back", "in a stream"])
def test_leaving_while_the_provider_works(start, state, how):
    before = {"waiting for the head": b"",
              "head held back": stream(delta(role="assistant"), end=False),
              "in a stream": stream(delta(role="assistant"), delta(content="some"), end=False)}[state]
    provider = start.provider(then_hang(before))
    gateway = start.gateway(init_for(provider.url), env=SECRETS)
    made = connect(gateway.address)
    made.sendall(chat_bytes("m", stream=True))
    wait_until(lambda: provider.asked, "the request is with the provider")
    if state == "in a stream":
        got = b""
        while b"some" not in got:
            got += made.recv(65536)
    elif state == "head held back":
        wait_until(lambda: gateway.status()["calls"][0]["state"] == "head", "the head has come")
    leave(made, how)
    assert_gone(gateway, provider)
    made.close()


def test_leaving_in_backoff(start):
    provider = start.provider(failure(503, headers={"retry-after": "20"}))
    gateway = start.gateway(init_for(provider.url), env=SECRETS)
    made = connect(gateway.address)
    made.sendall(chat_bytes("m"))
    wait_until(lambda: [c["state"] for c in gateway.status()["calls"]] == ["wait"], "the call is in backoff")
    made.close()
    assert_gone(gateway)
    assert len(provider.asked) == 1


def test_leaving_a_queue(start):
    provider = start.provider(then_hang(), ok("next"))
    gateway = holding(start, provider)
    first, second = connect(gateway.address), connect(gateway.address)
    first.sendall(chat_bytes("m"))
    wait_until(lambda: provider.asked, "the place is taken")
    second.sendall(chat_bytes("m"))
    wait_until(lambda: gateway.status()["waiting_for_a_place"] == 1, "the second waits")
    second.close()
    wait_until(lambda: gateway.status()["waiting_for_a_place"] == 0, "the line is empty again", LEAVE)
    assert gateway.status()["calls_open"] == 1
    first.close()
    assert_gone(gateway, provider)
    assert gateway.chat("m").status == 200, "the place was given back"


def test_leaving_while_a_credential_is_renewed(start):
    provider = start.provider(otherwise=failure(401, code="invalid_api_key"))
    tokens = start.provider(otherwise=then_hang())
    init = f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", auth = bearer(credential "c") }}
credential "c" {{ refresh_token = secret "REFRESH", access_token = secret "OLD_TOKEN",
                  token_url = "{tokens.url}/token", grant = "oauth" }}
route "/v1/*" {{ to = "p", deadline = 30, chain = {chain()} }}
"""
    gateway = start.gateway(init, env=SECRETS)
    made = connect(gateway.address)
    made.sendall(chat_bytes("m"))
    wait_until(lambda: tokens.asked, "the renewal has begun")
    wait_until(lambda: gateway.status()["calls"][0]["state"] == "token", "the call waits for it")
    made.close()
    assert_gone(gateway)
    assert gateway.status()["credentials"][0]["waiting"] == 0


def test_leaving_while_the_body_is_sent(start):
    provider = start.provider(otherwise=ok("never"))
    gateway = start.gateway(init_for(provider.url), env=SECRETS)
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m")[:-5])
    assert gateway.chat("m").status == 200
    assert len(provider.asked) == 1, "half a request is never passed on"


def descriptors(process):
    return len(os.listdir(f"/proc/{process.process.pid}/fd"))


def test_many_clients_that_leave_at_any_time_leave_nothing_behind(gateway, sim):
    gateway.wait_idle()
    gateway.chat("m")
    before = descriptors(gateway)
    faults = ["", "delay=0.2", "hang", "503", "code=429;retry-after=3", "cut", "slow", "stall-after", "reset"]
    for number in range(90):
        with connect(gateway.address) as made:
            made.sendall(chat_bytes("m", {"x-sim-fault": faults[number % len(faults)]}, stream=number % 2 == 0))
            time.sleep(0.005 * (number % 7))
    gateway.wait_idle()
    wait_until(lambda: sim.stats()["open"] == 0, "the provider has nothing open")
    assert gateway.chat("m").status == 200
    kept = 16  # connections to the provider that are worth keeping
    wait_until(lambda: descriptors(gateway) <= before + kept, "the connections are closed")


# --- Readers and writers that are too slow or too large ------------------------------------------------------------


def memory(gateway):
    """Resident bytes."""
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024


def test_a_client_that_does_not_read_costs_no_memory(gateway, sim):
    gateway.chat("m")
    before, made = memory(gateway), []
    for _ in range(4):
        made.append(connect(gateway.address))
        made[-1].sendall(chat_bytes("m", {"x-sim-size": str(100 * 1024 * 1024)}, stream=True))
    wait_until(lambda: len([c for c in gateway.status()["calls"] if c["state"] == "relay"]) == 4, "four streams run")
    time.sleep(1)  # would be hundreds of megabytes by now
    assert memory(gateway) - before < 64 * 1024 * 1024, (before, memory(gateway))
    for client in made:
        client.close()
    gateway.wait_idle()


def test_a_large_stream_arrives_whole_at_a_slow_reader(gateway):
    size = 8 * 1024 * 1024
    with connect(gateway.address) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        made.sendall(chat_bytes("m", {"x-sim-size": str(size), "connection": "close"}, stream=True))
        got = bytearray()
        while piece := made.recv(16 * 1024):
            got += piece
            if len(got) % 64 == 0:
                time.sleep(0.001)
    assert got.count(b"x") >= size and got.endswith(b"0\r\n\r\n") and b"[DONE]" in got[-200:]


@pytest.mark.parametrize("path,kind", [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic")])
def test_a_body_that_is_too_large_is_refused_in_the_client_s_dialect(start, sim, path, kind):
    gateway = start.gateway(init_for(sim.url), "--max-body", "10M", env=SECRETS)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    announced = raw(gateway.address, (head + "Content-Length: 99999999\r\n\r\n").encode() + b"{")
    assert announced.startswith(b"HTTP/1.1 413 "), announced[:300]
    body = json.loads(announced.partition(b"\r\n\r\n")[2])
    assert (body["error"]["type"] == "request_too_large") if kind == "anthropic" else body["error"]["message"]
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connect(gateway.address) as made:
        made.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                made.sendall(piece)
        assert made.recv(65536).startswith(b"HTTP/1.1 413 ")


# --- Requests that are wrong ---------------------------------------------------------------------------------------


MALFORMED = {
    "no version": b"GET /v1/models\r\n\r\n",
    "space in target": b"GET /v1/mo dels HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "space before colon": b"GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded line": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "bare cr": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    "nul": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "length twice": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length with plus": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
    "other coding": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n",
    "chunk overflow": b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\na\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_ambiguous_is_400_and_close(gateway, sim, name):
    before = sim.stats()["total"]
    got = raw(gateway.address, MALFORMED[name] + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ") and got.count(b"HTTP/1.1 ") == 1, got
    assert sim.stats()["total"] == before


@pytest.mark.parametrize("data,status", [
    (b"GET /v1/models HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"GET /v1/" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200000 + b"\r\n\r\n", 431),
    (b"POST /v1/x HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 1\r\n\r\na", 417),
])
def test_what_is_not_spoken_here_has_its_own_status(gateway, data, status):
    assert raw(gateway.address, data).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("body", [b'{"model":"a","model":"b","messages":[]}', b'{"model":"a","\\u006dodel":"b"}',
                                  b'{"model":"a","stream":false,"stream":true}', b"[" * 100000])
def test_a_body_two_readers_could_read_differently_is_refused(gateway, sim, body):
    before = sim.stats()["total"]
    reply = gateway.post("/v1/chat/completions", body, {"content-type": "application/json"})
    assert reply.status == 400 and reply.json()["error"]["type"] == "invalid_request_error", reply
    assert reply.attempts == 0 and sim.stats()["total"] == before


def test_a_path_without_a_route_is_404(gateway):
    for path in ("/", "/v2/x", "/metrics", "/api/v1/status", "/v1"):
        reply = send(gateway.address, "GET", path)
        assert reply.status == 404 and reply.json()["error"]["message"], (path, reply)


def test_head_expect_and_keep_alive(gateway):
    head = raw(gateway.address, b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ") and head.endswith(b"\r\n\r\n")
    request = chat_bytes("m", {"expect": "100-continue"})
    at = request.index(b"\r\n\r\n") + 4
    with connect(gateway.address) as made:
        made.sendall(request[:at])
        assert made.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(request[at:])
        got = b""
        while b"hello" not in got:
            got += made.recv(65536)
        assert got.startswith(b"HTTP/1.1 200 ")
        made.sendall(chat_bytes("m") + chat_bytes("m"))  # and two more on the same connection, one behind the other
        got = b""
        while got.count(b"HTTP/1.1 200 ") < 2 or got.count(b'"hello"') < 2:
            got += made.recv(65536)


# --- Probes, status, metrics -----------------------------------------------------------------------------------


def test_probes_status_and_metrics(gateway):
    for address in (gateway.address, gateway.admin):
        for path in ("/livez", "/readyz"):
            assert send(address, "GET", path).status == 200
    gateway.chat("m")
    metrics = gateway.metrics()
    for name in ("parry_calls_total", "parry_attempts_total", "parry_verdicts_total",
                 "parry_config_last_reload_successful", "parry_generation_info", "parry_build_info"):
        assert any(line.split("{")[0] == name for line in metrics), (name, sorted(metrics)[:50])
    status = gateway.status()
    assert status["ready"] and status["listen"] == gateway.address and status["pid"] == gateway.process.pid
    assert gateway.ask("GET", "/api/v1/generations").json()["generations"][0]["serving"]
    assert gateway.ask("GET", "/api/v1/events?limit=5").status == 200
    assert gateway.ask("GET", "/nothing").status == 404
    assert gateway.ask("POST", "/api/v1/status", body=b"").status == 405
    assert gateway.ask("GET", "/api/v1/nothing").headers["content-type"] == "application/problem+json"


def refuses(address):
    try:
        connect(address).close()
        return False
    except ConnectionError:
        return True


def test_ending_lets_open_calls_finish(start, sim):
    gateway = start.gateway(init_for(sim.url), env=SECRETS)
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m", {"x-sim-fault": "code=slow;delay=0.2"}, stream=True))
        got = made.recv(65536)
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: gateway.status()["draining"], "it drains")
        assert send(gateway.admin, "GET", "/readyz").status == 503
        wait_until(lambda: refuses(gateway.address), "no worker accepts any more")
        with pytest.raises(ConnectionError):
            connect(gateway.address)
        while b"[DONE]" not in got:
            piece = made.recv(65536)
            assert piece, "the stream was cut"
            got += piece
    gateway.process.wait(10)


def test_a_second_signal_ends_at_once(start):
    provider = start.provider(otherwise=then_hang())
    gateway = start.gateway(init_for(provider.url), env=SECRETS)
    with connect(gateway.address) as made:
        made.sendall(chat_bytes("m"))
        wait_until(lambda: provider.asked, "a call is open")
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: gateway.status()["draining"], "it drains")
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0 and time.monotonic() - began < 5


# --- Secrets -------------------------------------------------------------------------------------------------


def test_secrets_are_in_nothing_that_leaves(start):
    """A provider that repeats our own key in its errors, its redirects and its streams."""
    key = SECRETS["KEY"]
    echo = f"Incorrect API key provided: {key}. You can find your key in your account."
    prompt = "my-very-private-prompt"
    provider = start.provider(
        failure(401, echo, "invalid_api_key"),
        failure(400, echo),
        answer(200, {"error": {"message": echo, "type": "invalid_request_error"}}),
        answer(500, echo.encode(), {"content-type": "text/plain"}),
        stream(event({"error": {"message": echo, "type": "invalid_request_error"}})),
        stream(delta(content="x"), event({"error": {"message": echo, "type": "server_error"}})),
        otherwise=answer(502, f"<html><title>{key}</title></html>".encode(), {"content-type": "text/html"}))
    gateway = start.gateway(init_for(provider.url, '{ use "alert" }'), env=SECRETS)
    replies = [gateway.chat("m", text=prompt) for _ in range(4)]
    replies += [gateway.chat("m", text=prompt, stream=True) for _ in range(2)]
    replies += [gateway.chat("m", text=prompt)]
    for reply in replies:
        assert key not in str(reply.headers), reply
    said = "\n".join(reply.text for reply in replies)
    told = (gateway.output + gateway.ask("GET", "/metrics").text + json.dumps(gateway.status())
            + gateway.ask("GET", "/api/v1/events?limit=1000").text + gateway.command("status").stdout)
    assert key not in told, "in what operators read"
    assert prompt not in told, "a prompt in what operators read"
    assert key not in said, "in what clients read: the gateway's key is not theirs"
