"""Circuit breakers over real sockets, four workers, the provider counting.

Shows: open, the provider gets not one request; half-open, exactly as many as there are permits, whoever asks at the same
time on whatever worker, and a probe whose client leaves gives its place back; an outage of the documented set-up (one
target, one fallback) costs the first a fixed number of attempts; what happens when all are open; alerts open and close.
"""

import contextlib
import socket
import threading
import time

from harness import chat_bytes, connect, wait_until

FAIL = {"x-sim-fault": "code=503"}
HANG = {"x-sim-fault": "code=hang"}


def init_for(sim, breaker, more="", sink=""):
    return f"""
provider "p" {{ base_url = "{sim.url}/v1", dialect = "openai" }}
{sink}
route "/v1/*" {{ to = "p", deadline = 60, timeouts = {{ first_byte = 60 }},
  chain = {{ use "circuit_breaker" {{ {breaker} }}, {more} }} }}
"""


def calls(sim, model):
    return sim.stats()["models"].get(model, 0)


def at_once(number, work):
    """Runs `work` in so many threads that begin together; their results."""
    results, barrier = [None] * number, threading.Barrier(number)

    def run(i):
        barrier.wait()
        results[i] = work()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def open_breaker(gateway, model, failures):
    """Returns when the cooldown began, or a little later."""
    for _ in range(failures):
        assert gateway.chat(model, FAIL).status == 503
    return time.monotonic()


def breaker_state(gateway, target):
    return next((b["state"] for b in gateway.status()["breakers"] if b["key"].endswith(target)), None)


def test_open_means_no_request_at_all(start):
    sim = start.sim()
    gateway = start.gateway(init_for(sim, "failures = 5, cooldown = 60"))
    open_breaker(gateway, "m", 5)
    assert calls(sim, "m") == 5
    replies = at_once(40, lambda: gateway.chat("m"))
    for reply in replies:
        assert reply.status == 503, reply
        assert reply.json()["error"]["code"] == "circuit_open"
        assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert calls(sim, "m") == 5
    assert gateway.chat("other").status == 200  # a target of its own


class Callers:
    """Connections that have asked and whose answers nobody has read yet."""

    def __init__(self, gateway, number, model, headers):
        self.open = [connect(gateway.address) for _ in range(number)]
        data = chat_bytes(model, headers)
        at_once(number, lambda: None)  # threads are warm
        lock, waiting = threading.Lock(), list(self.open)

        def ask():
            with lock:
                made = waiting.pop()
            made.sendall(data)
        at_once(number, ask)

    def answered(self):
        found = []
        for made in self.open:
            made.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if made.recv(4096, socket.MSG_PEEK):
                    found.append(made)
        return found

    def leave(self):
        for made in self.open:
            made.close()


def test_half_open_lets_exactly_the_permits_through(start):
    sim = start.sim()
    gateway = start.gateway(init_for(sim, "failures = 2, cooldown = 1, successes = 3, permits = 3"))
    began = open_breaker(gateway, "m", 2)
    wait_until(lambda: time.monotonic() > began + 1.05, "the cooldown is over")
    callers = Callers(gateway, 100, "m", HANG)
    wait_until(lambda: len(callers.answered()) == 97, "97 are refused")
    assert calls(sim, "m") == 2 + 3
    for made in callers.answered():
        assert made.recv(4096).startswith(b"HTTP/1.1 503")
    assert breaker_state(gateway, "p/m") == "half_open"
    # Those that hang leave: nothing is counted, and their places are free again (Polly would have closed it).
    callers.leave()
    gateway.wait_idle()
    assert breaker_state(gateway, "p/m") == "half_open"
    for _ in range(3):
        assert gateway.chat("m").status == 200
    assert breaker_state(gateway, "p/m") == "closed"
    assert [reply.status for reply in at_once(20, lambda: gateway.chat("m"))] == [200] * 20


def test_one_failure_in_half_open_opens_it_again(start):
    sim = start.sim()
    gateway = start.gateway(init_for(sim, "failures = 2, cooldown = 1, successes = 3"))
    began = open_breaker(gateway, "m", 2)
    wait_until(lambda: time.monotonic() > began + 1.05, "the cooldown is over")
    assert gateway.chat("m", FAIL).status == 503
    before = calls(sim, "m")
    assert before == 3
    assert all(reply.status == 503 for reply in at_once(20, lambda: gateway.chat("m")))
    assert calls(sim, "m") == before


def test_an_outage_costs_a_target_with_a_fallback_a_fixed_number_of_attempts(start):
    """LiteLLM #40405: 33 attempts at a dead primary for 11 requests, because a single target never opened."""
    sim = start.sim("--fault", "m=code=503")
    gateway = start.gateway(init_for(
        sim, "failures = 5, cooldown = 60",
        'use "retry" { max_attempts = 3, base = 0.01, cap = 0.01 }, use "fallback_model" { models = { m = { "p/n" } } },'))
    for _ in range(11):
        reply = gateway.chat("m")
        assert reply.status == 200 and reply.target == "p/n", reply
    assert calls(sim, "m") == 5
    assert calls(sim, "n") == 11


def test_a_share_of_failures_opens_it(start):
    sim = start.sim()
    gateway = start.gateway(init_for(sim, "ratio = 0.5, window = 60, min_calls = 10, cooldown = 60"))
    for i in range(10):
        assert gateway.chat("m", FAIL if i % 2 else {}).status == (503 if i % 2 else 200)
    assert gateway.chat("m").json()["error"]["code"] == "circuit_open"
    assert calls(sim, "m") == 10


def test_the_callers_own_errors_never_open_it(start):
    sim = start.sim()
    gateway = start.gateway(init_for(sim, "failures = 1, cooldown = 60"))
    for code in (400, 401, 403, 404, 413, 429, "context", "content", "balance"):
        assert gateway.chat("m", {"x-sim-fault": f"code={code}"}).json()["error"].get("code") != "circuit_open"
    assert gateway.chat("m").status == 200


def test_all_open_and_tried_anyway(start):
    sim = start.sim()
    gateway = start.gateway(init_for(
        sim, 'failures = 1, cooldown = 60, when_all_open = "try_anyway"',
        'use "fallback_model" { models = { m = { "p/n" } } },'))
    assert gateway.chat("m", FAIL).status == 503  # both have failed now
    assert breaker_state(gateway, "p/m") == breaker_state(gateway, "p/n") == "open"
    for reply in at_once(8, lambda: gateway.chat("m")):
        assert reply.status == 200 and reply.target == "p/m", reply


def test_all_open_and_waited_for(start):
    """LiteLLM #3646: wait for the first model to come back instead of failing."""
    sim = start.sim()
    gateway = start.gateway(init_for(
        sim, 'failures = 1, cooldown = 1, successes = 2, when_all_open = "wait", max_wait = 30'))
    began = open_breaker(gateway, "m", 1)
    replies = at_once(20, lambda: gateway.chat("m"))
    assert [reply.status for reply in replies] == [200] * 20
    assert time.monotonic() - began >= 0.9
    assert calls(sim, "m") == 21  # who waits sends nothing


def test_alerts_say_when_it_opens_and_when_it_closes(start):
    sim, receiver = start.sim(), start.receiver()
    gateway = start.gateway(
        init_for(sim, 'failures = 2, cooldown = 1, successes = 1, to = "ops"', sink='sink "ops" { webhook = secret "OPS" }'),
        env={"OPS": receiver.url + "/hook"})
    began = open_breaker(gateway, "m", 2)
    wait_until(lambda: len(receiver.alerts()) == 1, "the alert that it opened")
    wait_until(lambda: time.monotonic() > began + 1.05, "the cooldown is over")
    assert gateway.chat("m").status == 200
    wait_until(lambda: len(receiver.alerts()) == 2, "the alert that it closed")
    opened, closed = receiver.alerts()
    assert opened["state"] == "firing" and "p/m is open after overloaded, HTTP 503" in opened["text"], opened
    assert closed["state"] == "resolved" and opened["key"] == closed["key"], closed
