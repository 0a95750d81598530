"""Everything at once: calls of all kinds from clients that stay or leave, reloads good and bad, rollbacks, SIGHUP, status,
events and metrics, in random order over four workers, and SIGTERM in the middle of it.

Shows: whatever the order, every client that waits for its answer gets a whole one, the program never says anything
worse than a refusal, nothing is left behind, and it ends when told to. Under a sanitizer it is also what finds races.

PARRY_STORM (150) is the number of things done; PARRY_STORM_SEED repeats one order. PARRY_STORM_OPTIONS goes to `parry
serve`: with "--lua-memory 900K" states are rebuilt all the time, with "--lua-instructions 4000000000 --lua-wall-ms 2500"
workers get stuck.
"""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import threading

from harness import (PARRY, Provider, answer, chat_bytes, clean_environment, connect, delta, failure, ok, reset,
                     run_parry, send, stream, wait_until)

ROUNDS = int(os.environ.get("PARRY_STORM") or 150)
SEED = int(os.environ.get("PARRY_STORM_SEED") or random.randrange(1 << 32))
OPTIONS = (os.environ.get("PARRY_STORM_OPTIONS") or "--lua-memory 8M").split()
SECRETS = {"REFRESH": "refresh-0123456789", "OPS": "", "KEY": "sk-storm-0123456789"}

STORM = """
return policy {
  name = "storm",
  every = {
    { seconds = 1, run = function(self) store.count("ran") end },
    { seconds = 1, run = function(self) sleep(0.2) store.set("slept", 1) end },
  },
  on_event = function(self, event) store.count("events") end,
  on_request = function(self, call)
    store.window("calls", { seconds = 1, limit = 1000 }):add()
    if call.model == "fault" then error("told to") end
    while call.model == "spin" do end
    if call.session then
      return hold { key = "session:" .. call.session, slots = 1, max_wait = 5 }
    end
  end,
  on_error = function(self, call, err)
    if call.model == "ask" and call.attempt < 3 then
      http.request { service = "hints", path = "/hint", timeout = 1 }
      return retry { after = 0.01 }
    end
  end,
  on_outcome = function(self, call, attempt) store.count("outcomes:" .. call.target.name) end,
  on_done = function(self, call, outcome) store.set("last", call.id) end,
}
"""

INIT = """
provider "p" { base_url = "%(url)s/v1", dialect = "openai", auth = bearer(credential "c") }
provider "q" { base_url = "%(url)s/v1", dialect = "openai", auth = bearer(secret "KEY") }
credential "c" { refresh_token = secret "REFRESH", token_url = "%(url)s/token", grant = "oauth" }
service "hints" { base_url = "%(url)s" }
sink "ops" { webhook = secret "OPS" }
route "/v1/*" { to = by_model { ["q-*"] = "q", ["*"] = "p" }, deadline = 10, chain = {
  use "storm", use "token_refresh", use "circuit_breaker" { failures = 1000 },
  use "retry" { max_attempts = 4, base = 0.01, cap = 0.05 }, use "alert" } }
"""


class StormProvider(Provider):
    """Answers by the model that is asked for, and gives tokens that soon expire."""

    def __init__(self):
        super().__init__(otherwise=self.serve)
        self.tokens = 0

    def serve(self, asked):
        if asked.path == "/token":
            self.tokens += 1
            asked.send(answer(200, {"access_token": f"token-{self.tokens:08}", "expires_in": 8}))
            return True
        if asked.path == "/hint":
            asked.send(answer(200, {"hint": 1}))
            return True
        model = asked.json().get("model", "")
        if model == "reset":
            reset(asked.made)
            return False
        if model == "slow":
            asked.hang()
            return False
        if model == "stream":
            asked.send(stream(*[delta(content=str(n)) for n in range(20)], b"data: [DONE]\n\n"))
        elif model == "cut":
            asked.send(stream(delta(content="half"), end=False))
            return False
        elif model == "denied":
            asked.send(failure(401, "no", "invalid_api_key"))
        elif model in ("busy", "ask"):
            asked.send(failure(503, "busy"))
        else:
            asked.send(ok(model=model))
        return True


class Storm:
    def __init__(self, gateway, provider, number):
        self.gateway, self.provider = gateway, provider
        self.random = random.Random(SEED + number)
        self.problems = []
        self.over = threading.Event()
        self.number = 0

    def call(self):
        model = self.random.choice(["m", "q-m", "stream", "cut", "reset", "busy", "ask", "denied", "fault", "spin"])
        headers = {"x-session-id": f"s{self.random.randrange(3)}"} if self.random.random() < 0.3 else None
        reply = self.gateway.chat(model, headers=headers, stream=model in ("stream", "cut"))
        if model in ("m", "q-m", "stream", "fault", "spin") and reply.status not in (200, 401, 429, 503):
            self.problems.append((model, reply))
        if reply.status == 200 and not reply.whole and model != "cut":
            self.problems.append((model, reply))

    def leave(self):
        """Sends a call, or half of it, and goes, well-behaved or not."""
        data = chat_bytes(self.random.choice(["slow", "m", "stream", "busy"]), stream=True,
                          headers={"x-session-id": "s1"} if self.random.random() < 0.5 else None)
        made = connect(self.gateway.address)
        with contextlib.suppress(OSError):
            made.sendall(data[:self.random.choice([len(data), len(data), len(data) // 2, 3])])
            if self.random.random() < 0.5:
                made.settimeout(0.02)
                made.recv(100)
        if self.random.random() < 0.5:
            reset(made)
        else:
            made.close()

    def edit(self):
        self.number += 1
        kind = self.random.randrange(6)
        text = INIT % {"url": self.provider.url} + f"-- {self.number if kind else 0}\n"
        if kind == 1:
            text = text.replace('use "token_refresh",', "")
        if kind == 2:
            text = text.replace('credential "c" {', 'credential "d" {').replace('credential "c"', 'credential "d"')
        if kind == 3:
            text += "nonsense(\n"
        if kind == 4:
            text = text.replace('provider "q"', 'provider "other"').replace('= "q"', '= "other"')
        self.gateway.folder.write("init.lua", text)
        if self.random.random() < 0.5:
            self.admin("POST", f"/api/v1/reload?wait={self.random.choice(['0', '0.01', '10'])}")

    def admin(self, method, path):
        reply = self.gateway.ask(method, path)
        if reply.status not in (200, 202, 409):
            self.problems.append((path, reply))
        elif path != "/metrics":
            json.loads(reply.body)

    def leave_admin(self):
        made = connect(self.gateway.admin)
        path = self.random.choice(["GET /api/v1/status", "GET /api/v1/events", "POST /api/v1/reload"])
        made.sendall(f"{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        made.close()

    def do(self):
        what = self.random.random()
        if what < 0.45:
            self.call()
        elif what < 0.65:
            self.leave()
        elif what < 0.72:
            self.edit()
        elif what < 0.76:
            self.admin("POST", "/api/v1/rollback")
        elif what < 0.80:
            self.gateway.process.send_signal(signal.SIGHUP)
        elif what < 0.85:
            self.leave_admin()
        else:
            self.admin("GET", self.random.choice(
                ["/api/v1/status", "/api/v1/events?limit=1000", "/api/v1/generations", "/metrics"]))

    def rage(self, rounds):
        """Until it is over, which an ended program makes of any failed connection."""
        for _ in range(rounds):
            try:
                self.do()
            except (OSError, ValueError) as problem:
                if not self.over.is_set():
                    self.problems.append(problem)
                return


def rage(gateway, provider, threads=6):
    storms = [Storm(gateway, provider, number) for number in range(threads)]
    running = [threading.Thread(target=storm.rage, args=(ROUNDS // threads + 1,)) for storm in storms]
    for thread in running:
        thread.start()
    return storms, running


def begin(start):
    print("PARRY_STORM_SEED", SEED)
    provider = start.keep(StormProvider())
    receiver = start.receiver()
    folder = start.folder(INIT % {"url": provider.url})
    folder.write("storm.lua", STORM)
    gateway = start.gateway(folder, "--state", start.directory / "state", "--drain-timeout", "1", *OPTIONS,
                            env={**SECRETS, "OPS": receiver.url + "/ops"})
    return gateway, provider


def check(storms):
    problems = [problem for storm in storms for problem in storm.problems]
    assert not problems, (len(problems), problems[:3], SEED)


def test_a_storm_leaves_nothing_behind(start):
    gateway, provider = begin(start)
    storms, running = rage(gateway, provider)
    for thread in running:
        thread.join(300)
    check(storms)
    status = gateway.wait_idle()
    print({name: status[name] for name in ("reloads", "reloads_refused", "rollbacks", "faults")},
          [worker.get("rebuilds") for worker in status["worker_list"]], status["jobs"], len(provider.asked))
    assert all(worker["adopted"] and not worker["stuck"] for worker in status["worker_list"])
    assert gateway.command("reload", "--wait=20").returncode in (0, 1)
    gateway.stop()


def test_a_storm_ends_with_sigterm_in_the_middle(start):
    gateway, provider = begin(start)
    storms, running = rage(gateway, provider)
    wait_until(lambda: len(provider.asked) > 20, "the storm has begun")
    for storm in storms:
        storm.over.set()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    for thread in running:
        thread.join(60)
    check(storms)
    gateway.stop()


# --- Two programs, and one unix socket --------------------------------------------------------------------------


def simple(start):
    provider = start.provider(otherwise=ok("served"))
    return start.folder(f'provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}\n'
                        'route "/v1/*" { to = "p", chain = {} }\n')


def test_a_second_program_does_not_get_half_of_the_clients(start):
    """Each worker has a socket of its own on one port. A second `parry serve` of the same user once joined them."""
    gateway = start.gateway(simple(start))
    second = run_parry("serve", "--policies", gateway.folder.path, "--listen", gateway.address, "--workers", "4",
                       "--admin", f"unix:{gateway.directory}/second.sock", timeout=30)
    assert second.returncode == 1 and "in use" in second.stderr, second


def test_many_workers_listen_on_one_unix_socket(start):
    """Only one worker could: `parry serve --listen unix:PATH` did not start on a machine with two processors."""
    path = f"unix:{start.directory}/gateway.sock"
    gateway = start.gateway(simple(start), "--listen", path)
    body = {"model": "m", "messages": []}
    for _ in range(20):
        assert send(path, "POST", "/v1/chat/completions", body=body).status == 200
    gateway.stop()
    assert not os.path.exists(path.removeprefix("unix:"))


# --- Few descriptors ---------------------------------------------------------------------------------------------


def test_more_workers_than_the_soft_limit_of_descriptors_allows(start):
    """Systems give a program 1,024 descriptors unless it asks for more, which is less than 256 workers take."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, most))
    try:
        gateway = start.gateway(simple(start), "--workers", "24")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    assert gateway.chat("m").status == 200
    assert gateway.status()["workers"] == 24


def test_too_few_descriptors_for_the_workers_are_named_with_the_cure(start):
    refused = subprocess.run(
        ["sh", "-c", 'ulimit -n 100; exec "$0" "$@"', PARRY, "serve", "--policies", simple(start).path, "--workers",
         "24", "--listen", "127.0.0.1:0", "--admin", f"unix:{start.directory}/admin.sock"],
        env=clean_environment(), capture_output=True, timeout=60, text=True)
    assert refused.returncode == 1 and "LimitNOFILE" in refused.stderr and "--workers" in refused.stderr, refused
