"""Rates, parallel calls, conversations and clients, limited over real sockets by a gateway with four workers.

What a provider is to see is measured there, by the kernel's time of arrival (SO_TIMESTAMPNS): when a busy machine lets
the provider's thread run says nothing about when a request came. Shows: a window is never exceeded, wherever one looks;
callers get their turn in order; a full line answers at once, and says when to come; clients that leave are out of the
line at once; a 429 stops everybody; targets of one account share its limit; a bulkhead lets in exactly so many; turns
of a conversation neither overlap nor overtake; what nobody uses is forgotten.
"""

import contextlib
import socket
import struct
import threading
import time

from harness import Provider, answer, chat_bytes, connect, failure, ok, run_parry, wait_until

SO_TIMESTAMPNS = 35


class Clock(Provider):
    """Notes when each request arrived in the kernel. Answers at once, or with `serve`."""

    def __init__(self, serve=None):
        super().__init__(otherwise=serve or ok())
        self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # connections inherit it

    def _read_request(self, made):
        arrived = []

        class Stamped:
            """The connection, for reading: keeps the time of the first bytes."""

            settimeout = made.settimeout

            @staticmethod
            def recv(size):
                data, extra, _, _ = made.recvmsg(size, 256)
                if data and not arrived:
                    stamps = [value for level, kind, value in extra
                              if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)]
                    seconds, nanoseconds = struct.unpack("qq", stamps[0])
                    arrived.append(seconds + nanoseconds / 1e9)
                return data

        asked = super()._read_request(Stamped)
        if asked:
            asked.made = made
            asked.arrived = arrived[0]
        return asked

    def arrivals(self):
        return sorted(asked.arrived for asked in self.asked)


def init_for(url, chain):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai" }}
provider "q" {{ base_url = "{url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = by_model {{ ["q-*"] = "q", ["*"] = "p" }}, deadline = 60, chain = {{ {chain} }} }}
"""


class Callers:
    """Threads that each make one call."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.replies = {}
        self.threads = []

    def start(self, name, model="m", **more):
        def run():
            self.replies[name] = self.gateway.chat(model, **more)
        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.replies

    def wait_in_line(self, count):
        wait_until(lambda: self.gateway.status()["waiting_for_a_place"] == count, f"{count} in line")


def exceeded(arrivals, limit, per):
    """Spans shorter than `per` with more than `limit` arrivals."""
    return [later - first for first, later in zip(arrivals, arrivals[limit:]) if later - first < per]


def test_a_window_is_never_exceeded(start):
    """60 callers at once and some that leave, 10 in any half second."""
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(provider.url, 'use "rate_limit" { limit = 10, per = 0.5, margin = 0.1 }'))
    callers = Callers(gateway)
    leavers = []
    for i in range(60):
        callers.start(i)
        if i % 6 == 5:
            leavers.append(connect(gateway.address))
            leavers[-1].sendall(chat_bytes("m"))
    time_of_first = wait_until(provider.arrivals, "a first request")[0]
    for made in leavers:
        made.close()
    replies = callers.join()
    assert [reply.status for reply in replies.values()] == [200] * 60
    arrivals = provider.arrivals()
    assert 60 <= len(arrivals) <= 70
    assert not exceeded(arrivals, 10, 0.5)
    assert arrivals[-1] - time_of_first >= 0.5 * 5
    wait_until(lambda: gateway.status()["keys_of_places"] == 0, "the window is forgotten")


def test_a_bucket_is_never_exceeded(start):
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(provider.url, 'use "rate_limit" { rate = 40, burst = 10 }'))
    callers = Callers(gateway)
    for i in range(50):
        callers.start(i)
    assert {reply.status for reply in callers.join().values()} == {200}
    arrivals = provider.arrivals()
    for i, first in enumerate(arrivals):
        for j in range(i, len(arrivals)):
            # two more: those that some requests may need 50 ms longer than others for
            assert j - i + 1 <= 10 + 40 * (arrivals[j] - first) + 2


def test_turns_come_in_order(start):
    """Callers come one after the other, to whatever worker, and are let in the same way."""
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(provider.url, 'use "rate_limit" { limit = 1, per = 0.4, by = "provider" }'))
    callers = Callers(gateway)
    callers.start(0, "m0")
    wait_until(lambda: provider.asked, "the first")
    for i in range(1, 5):
        callers.start(i, f"m{i}")
        wait_until(lambda: len(provider.asked) + gateway.status()["waiting_for_a_place"] == i + 1, "the next in line")
    assert {reply.status for reply in callers.join().values()} == {200}
    assert [asked.json()["model"] for asked in provider.asked] == [f"m{i}" for i in range(5)]
    assert not exceeded(provider.arrivals(), 1, 0.4)


def test_a_full_line_answers_at_once(start):
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(
        provider.url, 'use "rate_limit" { limit = 1, per = 30, max_waiting = 2, max_wait = 300 }'))
    assert gateway.chat("m").status == 200
    leavers = [connect(gateway.address) for _ in range(2)]
    for made in leavers:
        made.sendall(chat_bytes("m"))
    try:
        wait_until(lambda: gateway.status()["waiting_for_a_place"] == 1, "one waits, one is past the deadline")
        reply = gateway.chat("m")  # its turn would come after 60 s, and its deadline is there
        assert reply.status == 429
        assert reply.json()["error"]["code"] == "rate_limited"
        assert 30 <= int(reply.headers["retry-after"]) <= 61
        assert len(provider.asked) == 1
    finally:
        for made in leavers:
            made.close()
    wait_until(lambda: gateway.status()["waiting_for_a_place"] == 0, "who left is out of the line")
    assert len(provider.asked) == 1


def test_who_leaves_is_out_of_the_line(start):
    """Their turns go to those behind them, at once."""
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(provider.url, 'use "rate_limit" { limit = 1, per = 1 }'))
    callers = Callers(gateway)
    assert gateway.chat("m").status == 200
    leavers = [connect(gateway.address) for _ in range(20)]
    for made in leavers:
        made.sendall(chat_bytes("m"))
    callers.wait_in_line(20)
    callers.start("stays")
    callers.wait_in_line(21)
    for made in leavers:
        made.close()
    callers.wait_in_line(1)
    assert callers.join()["stays"].status == 200
    assert len(provider.asked) == 2
    assert not exceeded(provider.arrivals(), 1, 1)


def test_a_429_stops_everybody(start):
    """The first answer is a 429; from then on nothing is sent until its Retry-After is over, and then at the rate."""
    def serve(asked):
        asked.send(failure(429, "slow down", "rate_limit_exceeded", {"Retry-After": "1"})
                   if asked is provider.asked[0] else ok())
        return True

    provider = start.keep(Clock(serve))
    gateway = start.gateway(init_for(provider.url, 'use "rate_limit" { rate = 20, burst = 20 }'))
    callers = Callers(gateway)
    assert gateway.chat("m").status == 429
    for i in range(8):
        callers.start(i)
    assert {reply.status for reply in callers.join().values()} == {200}
    stopped, *others = provider.arrivals()
    assert others[0] - stopped >= 1
    assert others[-1] - others[0] >= 7 / 20 - 0.05  # the bucket was empty


def test_targets_of_one_account_share_its_limit(start):
    provider = start.keep(Clock())
    gateway = start.gateway(init_for(provider.url, """
        use "rate_limit" { limit = 3, per = 30, max_wait = 0, groups = { org = { "p/*", "q/q-*" } } },
        use "fallback_model" { models = { ["p/*"] = { "q/q-m" } } }"""))
    replies = [gateway.chat(model) for model in ("m", "q-m", "n", "m", "q-n")]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert all(1 <= int(reply.headers["retry-after"]) <= 31 for reply in replies[3:])
    assert len(provider.asked) == 3


class Counting(Clock):
    """Answers when told to; knows how many requests it has at a time, of all and of each session."""

    def __init__(self, hold=0.0):
        super().__init__(self.serve)
        self.hold = hold
        self.lock = threading.Lock()
        self.now, self.most = {}, {}

    def count(self, key, by):
        self.now[key] = self.now.get(key, 0) + by
        self.most[key] = max(self.most.get(key, 0), self.now[key])

    def serve(self, asked):
        session = asked.headers.get("x-session-id")
        if asked.json()["model"] == "leaver":  # its turn ends when it leaves, whatever is still done about it here
            session = "leavers"
        with self.lock:
            self.count("all", 1)
            self.count(session, 1)
        self.stopping.wait(self.hold)
        with self.lock:
            self.count("all", -1)
            self.count(session, -1)
        asked.send(ok())
        return True


def test_a_bulkhead_lets_in_exactly_so_many(start):
    provider = start.keep(Counting(hold=0.05))
    gateway = start.gateway(init_for(provider.url, 'use "concurrency" { slots = 4, max_wait = 30 }'))
    callers = Callers(gateway)
    for i in range(40):
        callers.start(i)
    assert {reply.status for reply in callers.join().values()} == {200}
    assert provider.most["all"] == 4
    assert len(provider.asked) == 40
    wait_until(lambda: gateway.status()["keys_of_places"] == 0, "the bulkhead is forgotten")


def test_a_full_bulkhead_answers_at_once(start):
    provider = start.keep(Clock(lambda asked: asked.hang()))
    gateway = start.gateway(init_for(
        provider.url, 'use "concurrency" { slots = 2, max_wait = 0, retry_after = 3 }'))
    inside = [connect(gateway.address) for _ in range(2)]
    for made in inside:
        made.sendall(chat_bytes("m"))
    wait_until(lambda: len(provider.asked) == 2, "both are inside")
    reply = gateway.chat("m")
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")
    assert reply.json()["error"]["code"] == "concurrency"
    for made in inside:
        made.close()
    wait_until(lambda: gateway.status()["keys_of_places"] == 0, "their places came back")
    assert len(provider.asked) == 2


def test_a_conversation_takes_turns(start):
    """Three conversations of eight calls each, over all workers: within one, one at a time and in order; the three
    beside each other. Clients that leave the line are passed over, and nothing is left behind."""
    provider = start.keep(Counting(hold=0.05))
    gateway = start.gateway(init_for(provider.url, 'use "session_queue" { max_waiting = 100 }'))
    callers, leavers = Callers(gateway), []
    expected = {f"s{s}": [] for s in range(3)}
    for i in range(8):
        for s, names in expected.items():
            seen = gateway.status()["calls_open"] + len(provider.asked)
            if i == 4:
                leavers.append(connect(gateway.address))
                leavers[-1].sendall(chat_bytes("leaver", headers={"x-session-id": s}))
            else:
                names.append(f"m{i}")
                callers.start((s, i), f"m{i}", headers={"x-session-id": s})
            entered(gateway, provider, seen)
    for made in leavers:
        made.close()
    assert {reply.status for reply in callers.join().values()} == {200}
    for s, names in expected.items():
        assert provider.most[s] == 1
        got = [asked.json()["model"] for asked in provider.asked if asked.headers.get("x-session-id") == s]
        assert [model for model in got if model != "leaver"] == names
    assert provider.most["all"] > 1
    wait_until(lambda: gateway.status()["keys_of_places"] == 0, "the conversations are forgotten")


def entered(gateway, provider, seen):
    """One more call than there was has come in: it is open, or was so already and has been answered."""
    def look():
        return gateway.status()["calls_open"] + len(provider.asked) > seen
    with contextlib.suppress(AssertionError):
        wait_until(look, "the call is in", seconds=0.5)


def test_tokens_of_a_day(start):
    """Counted over all workers, refused until midnight UTC."""
    used = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    body = {"id": "c", "object": "chat.completion", "model": "m", "usage": used, "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
    provider = start.keep(Clock())
    provider.otherwise = answer(200, body)
    gateway = start.gateway(init_for(
        provider.url, 'use "client_limits" { limits = { ["*"] = { tokens_per_day = 100 } } }'))
    while time.time() % 86400 > 86390:  # not over midnight
        wait_until(lambda: time.time() % 86400 < 100, "a new day")
    for _ in range(2):
        assert gateway.chat("m").status == 200
        gateway.wait_idle()
    reply = gateway.chat("m")
    assert reply.status == 429
    assert reply.json()["error"]["code"] == "daily_token_limit"
    assert abs(int(reply.headers["retry-after"]) - (86400 - time.time() % 86400)) < 30
    assert len(provider.asked) == 2


def test_an_edit_widens_the_line_at_once(start):
    provider = start.keep(Clock())
    folder = start.folder(init_for(provider.url, 'use "rate_limit" { limit = 1, per = 40, max_wait = 50 }'))
    gateway = start.gateway(folder)
    callers = Callers(gateway)
    assert gateway.chat("m").status == 200
    callers.start("waits")
    callers.wait_in_line(1)
    folder.replace("init.lua", "limit = 1", "limit = 3")
    gateway.command("reload", "--wait")
    assert gateway.chat("m").status == 200  # behind the one that waits
    assert callers.join()["waits"].status == 200
    assert len(provider.asked) == 3


def test_what_is_wrong_with_parameters_is_told(start):
    provider = start.keep(Clock())
    for use, words in {
        'use "rate_limit" {}': "rate_limit: give a limit (and per), or a rate (and burst)",
        'use "rate_limit" { limit = 5, burst = 3 }': "burst goes with rate",
        'use "rate_limit" { limit = 5, cost = "tokens" }': 'cost = "tokens" goes with rate and burst',
        'use "rate_limit" { limit = 0 }': "rate_limit: limit must be 1..100000, got 0",
        'use "rate_limit" { limit = 5, groups = { a = { "p" } } }': 'must be a target or a glob, as "provider/*"',
        'use "concurrency" { slots = 0 }': "concurrency: slots must be 1..65535, got 0",
        'use "session_queue" { header = "a", field = "b" }': "give header or field, not both",
        'use "session_queue" { key = "nobody" }': 'there is no function "nobody" in lib/session_keys.lua',
        'use "client_limits" { limits = { a = { calls = 1 } } }': 'has no "calls"; it takes calls_per_minute',
        'use "client_limits" { limits = { a = { concurrent = 1.5 } } }': "must be a whole number from 1 to 65535",
        'use "client_limits" { limits = { a = { cost_per_day = 0 } } }': "must be a number above 0",
    }.items():
        done = run_parry("check", start.folder(init_for(provider.url, use)).path)
        assert done.returncode == 1, use
        assert words in done.stdout + done.stderr, (use, done.stdout, done.stderr)
