"""Many workers, and generations that come and go under load.

Shows: reloads under load fail no call and cut no stream, and leave nothing behind; a generation that faults at run time
is undone by itself and kept out; a worker stuck in Lua is named, with its line, and nothing is retired under it; calls
of one session never overlap upstream and keep their order whatever worker they are on; one renewal for all workers, a
clear error for every waiter when it fails, and one more try after the cooldown.

PARRY_RELOADS (60) and PARRY_SESSION_CALLS (1000) make them longer; `./dev soak` does that.
"""

import asyncio
import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import pytest

from asynchronous import read_body, read_head, request_bytes
from harness import answer, chain, connect, failure, ok, run_parry, wait_until

RELOADS = int(os.environ.get("PARRY_RELOADS") or 60)
SESSION_CALLS = int(os.environ.get("PARRY_SESSION_CALLS") or 1000)
SECRETS = {"KEY": "sk-live-0123456789"}


def init_for(url, policies=None, more=""):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
{more}
route "/v1/*" {{ to = "p", deadline = 60, chain = {policies or chain()} }}
"""


def rss(gateway):
    with open(f"/proc/{gateway.process.pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024


def descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


# --- An asyncio client and provider: many connections in one thread --------------------------------------------


class AsyncProvider:
    """Answers quickly, streams slowly, and fails one call in ten once; in the test's own event loop."""

    def __init__(self):
        self.failed = set()
        self.tried_again = set()  # failed, and not come back yet
        self.asked = 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        self.url = "http://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                _, fields = await read_head(reader)
                body = json.loads(await read_body(reader, fields))
                self.asked += 1
                await self.answer(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, body, writer):
        if body.get("stream"):
            await self.stream(writer)
            return
        number = body["user"]
        self.tried_again.discard(number)
        # Not more than three at a time: so much retrying is always allowed.
        if int(number) % 10 == 0 and number not in self.failed and len(self.tried_again) < 3:
            self.failed.add(number)
            self.tried_again.add(number)
            text = b'{"error":{"message":"busy","type":"server_error","code":null,"param":null}}'
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n")
        else:
            text = json.dumps({"id": "x", "object": "chat.completion", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": number}, "finish_reason": "stop"}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()

    stream_until = None

    async def stream(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        number = 0

        def event(text):
            data = b"data: " + text + b"\n\n"
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        while not self.stream_until.is_set():
            event(json.dumps({"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}).encode())
            await writer.drain()
            number += 1
            await asyncio.sleep(0.05)  # the pace of a model, not a wait of the test
        event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
        event(b"[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class Load:
    """Clients that call one after the other on kept connections, and streams that stay open."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.where = (host, int(port))
        self.done = asyncio.Event()
        self.answers = collections.Counter()
        self.problems = []
        self.number = 0
        self.generations = set()

    async def client(self):
        reader, writer = await asyncio.open_connection(*self.where)
        while not self.done.is_set():
            self.number += 1
            number = str(self.number)
            writer.write(request_bytes("m", user=number))
            first, fields = await read_head(reader)
            body = await read_body(reader, fields)
            status = int(first.split()[1])
            self.answers[status] += 1
            if status != 200 or json.loads(body)["choices"][0]["message"]["content"] != number:
                self.problems.append((first, fields, body))
        writer.close()

    async def stream(self):
        reader, writer = await asyncio.open_connection(*self.where)
        writer.write(request_bytes("m", stream=True))
        first, fields = await read_head(reader)
        text = await read_body(reader, fields)
        said = [json.loads(line[6:]) for line in text.decode().split("\n")
                if line.startswith("data: {")]
        words = "".join(event["choices"][0]["delta"].get("content", "") for event in said).split()
        if not text.endswith(b"data: [DONE]\n\n") or words != [str(n) for n in range(len(words))] or not words:
            self.problems.append((first, fields, text[-500:]))
        writer.close()


def test_reloads_under_load_fail_no_call_and_cut_no_stream(start):
    marker = "-- generation 0\n"

    async def run():
        provider = AsyncProvider()
        await provider.start()
        AsyncProvider.stream_until = asyncio.Event()
        gateway = await asyncio.to_thread(start.gateway, init_for(provider.url) + marker, "--watch", "off", env=SECRETS)
        load = Load(gateway.address)
        streams = [asyncio.create_task(load.stream()) for _ in range(50)]
        clients = [asyncio.create_task(load.client()) for _ in range(16)]
        began, seen, memory = time.monotonic(), set(), []
        for number in range(1, RELOADS + 1):
            text = gateway.folder.read("init.lua")
            gateway.folder.write("init.lua", text[:text.index("-- generation")] + f"-- generation {number}\n")
            reply = await asyncio.to_thread(gateway.ask, "POST", "/api/v1/reload?wait=30")
            outcome = reply.json()
            assert outcome["result"] == "taken over" and outcome["behind"] == 0, outcome
            seen.add(outcome["generation"])
            memory.append((rss(gateway), descriptors(gateway)))
        seconds = time.monotonic() - began
        load.done.set()
        AsyncProvider.stream_until.set()
        await asyncio.gather(*streams, *clients)
        return gateway, load, seen, memory, seconds

    gateway, load, seen, memory, seconds = asyncio.run(run())
    assert not load.problems, load.problems[:3]
    assert set(load.answers) == {200} and len(seen) == RELOADS
    print(f"{RELOADS} reloads and {load.answers[200]} calls in {seconds:.1f} s: "
          f"{load.answers[200] / seconds:.0f} calls/s, RSS {memory[len(memory) // 4][0] >> 20} -> {memory[-1][0] >> 20} MiB, "
          f"descriptors {memory[len(memory) // 4][1]} -> {memory[-1][1]}")
    early = memory[len(memory) // 4]
    assert memory[-1][1] <= early[1] + 20, memory
    if "asan" not in os.environ.get("PARRY_BIN", "") and "tsan" not in os.environ.get("PARRY_BIN", ""):
        assert memory[-1][0] <= early[0] * 1.25 + (8 << 20), memory
    status = gateway.wait_idle()
    assert len({worker["generation"] for worker in status["worker_list"]}) == 1
    assert all(worker["adopted"] and not worker["stuck"] for worker in status["worker_list"])
    # Which generation decided is the same for a worker from one call to the next: none goes back to an older one.
    order = [entry["generation"][:7] for entry in gateway.log("policies taken over")]
    positions = {generation: number for number, generation in enumerate(order)}
    latest = collections.defaultdict(int)
    for entry in gateway.log("verdict"):
        worker = entry["call_id"].split("_")[1]
        position = positions.get(entry["generation"][:7], 0)
        assert position >= latest[worker], (entry, order)
        latest[worker] = position


# --- A generation that is bad only at run time --------------------------------------------------------------------


FAULTY = """
return policy {
  name = "retry",
  params = { max_attempts = param { 4, min = 1, max = 16, doc = "d" }, base = param { 0.5, doc = "d" },
             cap = param { 30.0, doc = "d" } },
  on_error = function(self, call, err)
    local nothing = call.vars.nothing
    return retry { after = nothing.seconds }
  end,
}
"""


def test_a_generation_that_faults_is_undone_by_itself_and_kept_out(start):
    provider = start.provider(otherwise=failure(503))
    state = start.directory / "state"
    gateway = start.gateway(init_for(provider.url), "--state", state, env=SECRETS)
    good = gateway.status()["generation"]["id"]
    good_text = gateway.folder.read("retry.lua")
    gateway.folder.write("retry.lua", FAULTY)
    wait_until(lambda: gateway.status()["generation"]["id"] != good, "the bad set serves")
    bad = gateway.status()["generation"]["id"]
    replies = []

    def call():
        while gateway.status()["generation"]["id"] == bad:
            replies.append(gateway.chat("m"))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    entry = gateway.wait_log("policies rolled back: they fault")
    assert entry["from"] == bad and entry["to"] == good and entry["faults"] >= 20
    assert "retry.lua:8" in entry["fault"], entry
    assert len(replies) >= 20 and all(reply.status == 503 and "error" in reply.json() for reply in replies), \
        "meanwhile clients get the provider's own error"
    status = gateway.status()
    assert status["generation"]["id"] == good and status["rollbacks"] == 1
    assert "retry.lua:8" in status["last_faults"][0]["fault"]

    # It is still on disk, and stays out: asked for, touched, and over a restart, which serves the last good set instead.
    refused = gateway.command("reload")
    assert refused.returncode == 1 and "rolled back by itself" in refused.stderr, refused
    gateway.folder.write("retry.lua", FAULTY)
    gateway.stop()
    again = start.gateway(gateway.folder, "--state", state, env=SECRETS)
    assert again.status()["generation"]["id"] == good
    loud = again.wait_log("the policies on disk are refused, serving the last good ones instead")
    assert "rolled back by itself" in loud["findings"] and loud["level"] == "error"
    assert again.status()["last_good"] and "last good policies" in again.command("status").stdout
    # Until its bytes change.
    again.folder.write("retry.lua", good_text.replace("-- policies/retry.lua", "-- policies/retry.lua (mended)", 1)
                       if "-- policies/retry.lua" in good_text else good_text + "\n")
    wait_until(lambda: again.status()["generation"]["id"] not in (good, bad), "the mended set is taken over")
    assert not again.status()["last_good"]


def test_last_good_is_over_when_the_folder_is_as_it_was(start):
    """`parry reload` found nothing to do, and status went on saying that the folder is refused."""
    provider = start.provider(otherwise=ok("served"))
    state = start.directory / "state"
    gateway = start.gateway(init_for(provider.url), "--state", state, env=SECRETS)
    good_text = gateway.folder.read("retry.lua")
    gateway.stop()
    gateway.folder.write("retry.lua", good_text + "this is not Lua\n")
    again = start.gateway(gateway.folder, "--state", state, "--watch", "off", env=SECRETS)
    metric = "parry_config_last_reload_successful"
    assert again.status()["last_good"] and f"\n{metric} 0\n" in again.ask("GET", "/metrics").text
    gateway.folder.write("retry.lua", good_text)
    assert again.command("reload").returncode == 0
    assert not again.status()["last_good"] and f"\n{metric} 1\n" in again.ask("GET", "/metrics").text


def test_rollback_by_hand_keeps_the_files_out_until_somebody_asks(start):
    provider = start.provider(otherwise=ok("served"))
    gateway = start.gateway(init_for(provider.url), env=SECRETS)
    first = gateway.status()["generation"]["id"]
    gateway.folder.write("init.lua", gateway.folder.read("init.lua") + "-- second\n")
    wait_until(lambda: gateway.status()["generation"]["id"] != first, "the second serves")
    second = gateway.status()["generation"]["id"]
    assert [kept["id"] for kept in gateway.status()["kept"]] == [first], "status names what can be gone back to"
    assert first[:7] in gateway.command("status").stdout
    back = gateway.command("rollback")
    assert back.returncode == 0 and first[:7] in back.stderr, back
    told = gateway.wait_log("policies rolled back: asked for")
    assert (told["from"], told["to"]) == (second, first)
    assert gateway.status()["generation"]["id"] == first
    (gateway.folder.path / "init.lua").touch()
    gateway.folder.write("init.lua", gateway.folder.read("init.lua"))
    nothing = gateway.command("rollback")
    assert nothing.returncode == 1 and "no earlier generation" in nothing.stderr, nothing
    kept = gateway.ask("GET", "/api/v1/generations").json()["generations"]
    assert [(g["id"], g["serving"], g["bad"]) for g in kept] == [(first, True, False), (second, False, True)]
    by_name = gateway.command("rollback", second[:10])
    assert by_name.returncode == 0 and gateway.status()["generation"]["id"] == second
    assert gateway.command("rollback", first[:4]).returncode == 0
    asked = gateway.command("reload")
    assert asked.returncode == 0 and gateway.status()["generation"]["id"] == second, asked
    assert gateway.command("rollback", "ff").returncode == 2
    assert gateway.chat("m").status == 200


def test_two_programs_do_not_share_a_state_folder(start):
    provider = start.provider(otherwise=ok("served"))
    state = start.directory / "state"
    gateway = start.gateway(init_for(provider.url), "--state", state, env=SECRETS)
    second = run_parry("serve", "--policies", gateway.folder.path, "--listen", "127.0.0.1:0", "--admin",
                       f"unix:{gateway.directory}/second.sock", "--state", state)
    assert second.returncode == 1 and str(gateway.process.pid) in second.stderr, second


# --- A worker that is stuck in Lua ---------------------------------------------------------------------------------


STUCK = """
return policy {
  name = "retry",
  params = { max_attempts = param { 4, min = 1, max = 16, doc = "d" }, base = param { 0.5, doc = "d" },
             cap = param { 30.0, doc = "d" } },
  on_error = function(self, call, err)
    if call.model ~= "stuck" then return end
    local n = 0
    while n >= 0 do
      n = n + 1
    end
  end,
}
"""


def test_a_worker_stuck_in_lua_is_named_and_nothing_is_retired_under_it(start):
    provider = start.provider(otherwise=failure(503))
    init = init_for(provider.url, '{ use "retry" }')
    gateway = start.gateway(init, "--watch", "off", "--lua-instructions", "4000000000000", "--lua-wall-ms", "4000",
                            env=SECRETS)
    gateway.folder.write("retry.lua", STUCK)
    assert gateway.command("reload").returncode == 0
    old = gateway.status()["generation"]["id"]
    replies = []
    caller = threading.Thread(target=lambda: replies.append(gateway.chat("stuck")))
    caller.start()
    wait_until(lambda: provider.asked, "its attempt has failed")
    gateway.folder.write("init.lua", init + "-- next\n")
    reload = gateway.command("reload", "--wait=20")
    assert reload.returncode == 1 and "retry.lua:" in reload.stderr, reload
    assert re.search(r"retry\.lua:(9|10|11): warning: worker \d has not taken the new policies over", reload.stderr), reload
    entry = gateway.wait_log("worker is stuck")
    assert re.match(r"retry\.lua:(9|10|11)$", entry["where"]), entry
    status = gateway.status()
    stuck = [worker for worker in status["worker_list"] if worker["stuck"]]
    assert [worker["worker"] for worker in stuck] == [entry["worker"]] and not stuck[0]["adopted"]
    assert not stuck[0]["answers"] and stuck[0]["where"].startswith("retry.lua:")
    assert all(worker["adopted"] and worker["generation"] != old for worker in status["worker_list"]
               if not worker["stuck"])
    shown = gateway.command("status").stdout
    assert "STUCK" in shown and "retry.lua:" in shown, shown
    # The others serve meanwhile, by the new generation. Which worker takes a connection is the kernel's choice.
    served = 0
    while served < 5:
        with connect(gateway.address) as made:
            made.sendall(request_bytes("m"))
            made.settimeout(0.05)
            try:
                served += made.recv(4096).startswith(b"HTTP/1.1 503")
            except TimeoutError:
                pass
    caller.join(30)
    assert replies[0].status == 503, "killed by the wall limit, and the provider's own error goes on"
    gateway.wait_log("worker goes on")
    wait_until(lambda: all(worker["adopted"] for worker in gateway.status()["worker_list"]), "it follows")


# --- One queue, and one renewal, for all workers ---------------------------------------------------------------------


SESSIONS = """
return policy {
  name = "sessions",
  on_request = function(self, call)
    if call.session ~= "" then return hold { key = "session:" .. call.session, slots = 1, max_wait = 30 } end
  end,
}
"""


class SessionProvider(AsyncProvider):
    """Knows which session is being served, and in what order its calls came. Answers only while the gate is open."""

    def __init__(self):
        super().__init__()
        self.open = collections.Counter()
        self.overlaps = []
        self.order = collections.defaultdict(list)
        self.gate = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            while True:
                _, fields = await read_head(reader)
                body = json.loads(await read_body(reader, fields))
                session = fields["x-session-id"]
                self.open[session] += 1
                if self.open[session] > 1:
                    self.overlaps.append(session)
                self.order[session].append(int(body["user"]))
                await self.gate.wait()
                await asyncio.sleep(random.random() * 0.002)  # the provider's work
                self.open[session] -= 1
                await self.answer({"user": "1"}, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.001)


async def line_up(gateway, provider, calls, sessions):
    """Sends calls of random sessions, each when the one before is known to be in line; the connections, by call."""
    host, _, port = gateway.address.rpartition(":")
    status = UnixStatus(gateway.admin)
    begun = sum(map(len, provider.order.values()))
    sent, expected = [], collections.defaultdict(list)
    first_of = set()
    for number in range(calls):
        session = f"s{random.randrange(sessions)}"
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_bytes("m", (f"x-session-id: {session}",), user=str(number)))
        first_of.add(session)
        sent.append((session, number, reader, writer))
        expected[session].append(number)
        waiting = number + 1 - len(first_of)
        while await status.waiting() < waiting:
            pass
        await until(lambda: sum(map(len, provider.order.values())) - begun == len(first_of), "the first is upstream")
    return sent, expected, status


class UnixStatus:
    """Asks for the status again and again on one connection."""

    def __init__(self, admin):
        self.path = admin.removeprefix("unix:")
        self.reader = None

    async def waiting(self):
        if not self.reader:
            self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        self.writer.write(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _, fields = await read_head(self.reader)
        return json.loads(await read_body(self.reader, fields))["waiting_for_a_place"]


def test_calls_of_a_session_never_overlap_and_keep_their_order(start):
    """In line on four workers; one client in five leaves before its turn."""
    sessions, at_once = 100, min(SESSION_CALLS, 1000)

    async def one_round(gateway, provider):
        provider.gate.clear()
        provider.order.clear()
        sent, expected, status = await line_up(gateway, provider, at_once, sessions)
        before = await status.waiting()
        leaving = [call for call in sent if call[1] % 5 == 0 and provider.order[call[0]][0] != call[1]]
        began = time.monotonic()
        for session, number, _, writer in leaving:
            writer.close()
            expected[session].remove(number)
        while await status.waiting() > before - len(leaving):
            pass
        left = time.monotonic() - began
        status.writer.close()
        provider.gate.set()
        for call in sent:
            if call in leaving:
                continue
            first, fields = await read_head(call[2])
            await read_body(call[2], fields)
            assert "200" in first, first
            call[3].close()
        return expected, left, len(leaving)

    async def everything():
        provider = SessionProvider()
        await provider.start()
        folder = start.folder(init_for(provider.url, '{ use "sessions" }'))
        folder.write("sessions.lua", SESSIONS)
        gateway = await asyncio.to_thread(start.gateway, folder, env=SECRETS)
        done, longest = 0, 0
        while done < SESSION_CALLS:
            expected, left, leaving = await one_round(gateway, provider)
            assert provider.order == expected
            assert left < 5, f"{leaving} clients left and were noticed after {left:.2f} s"
            longest = max(longest, left)
            done += at_once
        assert not provider.overlaps, provider.overlaps[:10]
        print(f"{done} calls of {sessions} sessions; {leaving} leaving clients out of line after {longest:.3f} s")
        return gateway

    gateway = asyncio.run(everything())
    workers = {entry["call_id"].split("_")[1] for entry in gateway.log("call")}
    assert workers == {"1", "2", "3", "4"}, workers
    gateway.wait_idle()


@pytest.mark.parametrize("ending", ["killed", "hangs"])
def test_a_renewal_that_dies_gives_every_waiter_a_clear_error_and_one_more_try(start, ending):
    """100 calls on four workers wait for one renewal whose token service dies in the middle of it."""
    provider = start.provider(otherwise=ok("served"))
    release = threading.Event()

    def die(asked):
        if ending == "killed":
            wait_until(release.is_set, "all wait")
            return False
        asked.hang()
        return False

    service = start.provider(die, otherwise=answer(200, {"access_token": "fresh-token-1", "expires_in": 3600}))
    more = f'credential "c" {{ refresh_token = secret "REFRESH", token_url = "{service.url}/token", grant = "oauth" }}'
    init = init_for(provider.url, '{ use "token_refresh" }', more).replace('bearer(secret "KEY")', 'bearer(credential "c")')
    gateway = start.gateway(init.replace("deadline = 60", "deadline = 4"), env={**SECRETS, "REFRESH": "refresh-token-1"})
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(gateway.chat("m"))) for _ in range(100)]
    for thread in threads:
        thread.start()
    wait_until(lambda: gateway.status()["credentials"][0]["waiting"] == 100, "all wait for it")
    release.set()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 100
    for reply in replies:
        assert reply.status in (401, 502, 503, 504) and reply.json()["error"]["message"], reply
        assert reply.seconds < 15, "within the deadline of 4 s, and what a slow machine adds"
    assert len(service.asked) == 1 and not provider.asked, "one renewal, and nothing was sent without a token"
    assert len({reply.call_id.split("_")[1] for reply in replies}) > 1, "the calls were on several workers"
    assert gateway.status()["credentials"][0]["waiting"] == 0
    if ending == "killed":  # in the cooldown nobody is kept waiting, and nobody asks again
        again = gateway.chat("m")
        assert again.status in (401, 503) and len(service.asked) == 1, again


def test_sighup_reloads(start):
    provider = start.provider(otherwise=ok("served"))
    gateway = start.gateway(init_for(provider.url), "--watch", "off", env=SECRETS)
    before = gateway.status()["generation"]["id"]
    gateway.folder.write("init.lua", gateway.folder.read("init.lua") + "-- more\n")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: gateway.status()["generation"]["id"] != before, "the saved set serves")


def test_a_bloated_script_state_is_replaced_and_calls_go_on(start):
    """With hardly more memory than loading the policies takes, what they need is more than half of it: the state counts
    as bloated at once."""
    provider = start.provider(otherwise=failure(503))
    roomy = start.gateway(init_for(provider.url), env=SECRETS)
    needed = max(worker["script_bytes"] for worker in roomy.status()["worker_list"])
    gateway = start.gateway(roomy.folder, "--lua-memory", f"{needed * 115 // 100 // 1024}K", env=SECRETS)

    def rebuilt():
        assert gateway.chat("m").status == 503
        return any(worker["rebuilds"] for worker in gateway.status()["worker_list"] if worker["answers"])

    wait_until(rebuilt, "a worker has a fresh state")
    entry = gateway.wait_log("script state rebuilt")
    assert entry["bytes_before"] > needed * 115 // 200, entry
    replaced = [worker for worker in gateway.status()["worker_list"] if worker["rebuilds"]]
    for _ in range(20):
        assert gateway.chat("m").status == 503
    again = {worker["worker"]: worker["rebuilds"] for worker in gateway.status()["worker_list"]}
    assert all(again[worker["worker"]] <= worker["rebuilds"] + 1 for worker in replaced), "not again and again"
    assert gateway.status()["faults"] == 0


HANGING_RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
  static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  if (!real)
    real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
  if (node && strcmp(node, "hangs.test") == 0)
    for (int i = 0; i < 600; i++)
      usleep(100000);
  return real(node, service, hints, found);
}
"""


def test_a_hanging_resolver_delays_nobody_else(start, tmp_path):
    """The name server of one provider does not answer. Calls to it wait for their timeout; all others are served, who
    leaves is let go at once, and the program ends."""
    source, library = tmp_path / "resolver.c", tmp_path / "resolver.so"
    source.write_text(HANGING_RESOLVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    provider = start.provider(otherwise=ok("served"))
    init = init_for(provider.url, "{}", 'provider "lost" { base_url = "http://hangs.test/v1", dialect = "openai" }').replace(
        'to = "p"', 'to = by_model { ["lost-*"] = "lost", ["*"] = "p" }')
    gateway = start.gateway(init, env={**SECRETS, "LD_PRELOAD": str(library), "ASAN_OPTIONS": "verify_asan_link_order=0"})
    with contextlib.ExitStack() as lost:
        hanging = [lost.enter_context(connect(gateway.address)) for _ in range(40)]
        for made in hanging:
            made.sendall(request_bytes("lost-m"))
        wait_until(lambda: gateway.status()["calls_open"] == 40, "all look the name up")
        began = time.monotonic()
        for _ in range(50):
            assert gateway.chat("m").status == 200
        assert time.monotonic() - began < 10
        for made in hanging[:20]:
            made.close()
        wait_until(lambda: gateway.status()["calls_open"] == 20, "those who left are gone")
    gateway.wait_idle()
