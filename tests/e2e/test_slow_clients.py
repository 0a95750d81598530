"""Clients that are slow on purpose, or by nature, and who must not suffer from them.

Shows: connections that trickle their heads do not slow honest clients down, and end by the deadline; a large answer to a
slow reader, a flood behind an open request and a large upload cost no memory.

PARRY_SLOWLORIS: how many trickling connections (300); both ends need that many descriptors.
"""

import http.client
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time

import pytest

from harness import chat_bytes, chunk, connect, delta, event, raw, reset, stream_head, then_hang, wait_until

SLOWLORIS = int(os.environ.get("PARRY_SLOWLORIS", "300"))
MIB = 1 << 20

# A process of its own: the honest client's clock must not wait for this one's interpreter. Opens connections, says a line
# when all are open, then gives each a byte of its head a second, and replaces those that the gateway ends.
ATTACKER = r"""
import resource, selectors, socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 100), hard))
selector = selectors.DefaultSelector()
cut = 0

def begin():
    made = socket.create_connection(("127.0.0.1", port))
    made.setblocking(False)
    made.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: parry\r\nX-Slow: ")
    selector.register(made, selectors.EVENT_READ)
    return made

def end(made):
    selector.unregister(made)
    made.close()

opened = [begin() for _ in range(count)]
print("open", flush=True)
selector.register(sys.stdin, selectors.EVENT_READ)
at, running = 0, True
while running:
    began = time.monotonic()
    for _ in range(max(1, count // 100)):
        at = (at + 1) % count
        try:
            opened[at].send(b"x")
        except OSError:
            pass
    for key, _ in selector.select(max(0, 0.01 - (time.monotonic() - began))):
        if key.fileobj is sys.stdin:
            running = False
            continue
        place = opened.index(key.fileobj)
        try:
            key.fileobj.recv(65536)
        except OSError:
            pass
        end(key.fileobj)
        cut += 1
        opened[place] = begin()
print(cut, flush=True)
"""


class Attack:
    def __init__(self, gateway, count):
        port = gateway.address.rsplit(":", 1)[1]
        self.process = subprocess.Popen([sys.executable, "-c", ATTACKER, port, str(count)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "open\n"

    def stop(self):
        """How many connections the gateway has ended."""
        cut, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return int(cut)


def memory(gateway, field):
    with open(f"/proc/{gateway.process.pid}/status", encoding="ascii") as status:
        return int(re.search(field + r":\s+(\d+)", status.read())[1]) * 1024


def resident(gateway):
    return memory(gateway, "VmRSS")


def peak(gateway):
    return memory(gateway, "VmHWM")


def descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def gateway_for(start, url, *arguments):
    return start.gateway(f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", deadline = 60, timeouts = {{ first_byte = 60, idle = 60 }}, chain = {{}} }}
""", *arguments, env={"ASAN_OPTIONS": "detect_leaks=1:quarantine_size_mb=1"})  # else it keeps what is freed


def honest(gateway, count):
    """Seconds of each of `count` calls, one after the other on one connection."""
    request = chat_bytes("sim-ok")
    taken = []
    with connect(gateway.address, 60) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            made.sendall(request)
            answer = http.client.HTTPResponse(made)
            answer.begin()
            assert answer.status == 200 and answer.read()
            taken.append(time.perf_counter() - began)
    return taken


def p99(taken):
    return sorted(taken)[len(taken) * 99 // 100]


def test_slowloris_leaves_honest_clients_alone(start):
    """The ratio of one run, with the quiet measured before and after; on a busy machine the best of a few runs."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < SLOWLORIS + 200:
        pytest.skip(f"{SLOWLORIS} connections need as many descriptors, this process may have {hard}")
    gateway = gateway_for(start, start.sim().url)
    honest(gateway, 200)
    before = descriptors(gateway)
    figures = []
    for _ in range(5):
        quiet = honest(gateway, 700)
        attack = Attack(gateway, SLOWLORIS)
        wait_until(lambda: descriptors(gateway) >= before + SLOWLORIS * 9 // 10, "the attackers are in")
        attacked = honest(gateway, 1400)
        held = descriptors(gateway) - before
        cut = attack.stop()
        wait_until(lambda: descriptors(gateway) <= before + 5, "the attackers are out")
        quiet += honest(gateway, 700)
        figures.append((p99(attacked) / p99(quiet), p99(quiet), p99(attacked), held, cut))
        assert held >= SLOWLORIS * 9 // 10, figures
        if figures[-1][0] <= 2:
            break
    for ratio, calm, hot, held, cut in figures:
        print(f"{held} slow connections, {cut} ended: p99 {hot * 1e3:.2f} ms, without {calm * 1e3:.2f} ms: {ratio:.2f}x")
    assert min(figures)[0] <= 2, figures


def test_a_large_answer_to_a_slow_reader(start):
    size, piece = 64 * MIB, delta(content="x" * 65000)
    sent = []

    def much(asked):
        asked.made.settimeout(60)
        asked.send(stream_head())
        while sum(sent) < size:
            asked.send(chunk(piece))
            sent.append(len(piece))
        asked.send(chunk(event("[DONE]")) + b"0\r\n\r\n")

    gateway = gateway_for(start, start.provider(much).url)
    assert gateway.ask("GET", "/livez").status == 200
    before, got, stalls = resident(gateway), 0, 0
    with connect(gateway.address, 60) as made:
        made.sendall(chat_bytes("m", stream=True))
        while True:
            if got < 8 * MIB:  # at first, read only when nothing moves any more
                last = -1
                while last != sum(sent):
                    last = sum(sent)
                    time.sleep(0.02)
                stalls += 1
                assert sum(sent) < got + 24 * MIB, "the gateway reads ahead of its client"
            more = made.recv(256 * 1024)
            got += len(more)
            if not more or got > size and b"\r\n0\r\n\r\n" in more:
                break
    assert got > size and stalls > 5
    most = peak(gateway) - before
    print(f"64 MiB to a slow reader: RSS +{most / MIB:.1f} MiB")
    assert most < 16 * MIB


def push(made, most):
    """Bytes that the other side took before it took no more."""
    made.setblocking(False)
    piece, pushed = b"x" * 256 * 1024, 0
    while pushed < most:
        if not select.select([], [made], [], 0.3)[1]:
            break
        try:
            pushed += made.send(piece)
        except BlockingIOError:
            continue
        except ConnectionError:
            break
    return pushed


def test_a_flood_behind_an_open_request(start):
    provider = start.provider(otherwise=then_hang())
    gateway = gateway_for(start, provider.url)
    assert gateway.ask("GET", "/livez").status == 200
    before = resident(gateway)
    with connect(gateway.address, 60) as made:
        made.sendall(chat_bytes("m"))
        wait_until(lambda: provider.asked, "the call is on its way")
        pushed = push(made, 200 * MIB)
        grown = peak(gateway) - before
        print(f"200 MiB behind a request: {pushed / MIB:.1f} MiB taken (by the kernel), RSS +{grown / MIB:.1f} MiB")
        assert pushed < 24 * MIB and grown < 4 * MIB
        reset(made)
    wait_until(lambda: provider.asked[0].left_at, "the call is cancelled")


@pytest.mark.parametrize("framing", ["Content-Length: %d" % (200 * MIB), "Transfer-Encoding: chunked"])
def test_a_large_upload(start, framing):
    """More than the gateway keeps for a retry: refused while it is sent, without keeping it."""
    provider = start.provider()
    gateway = gateway_for(start, provider.url, "--max-body", "16M")
    assert gateway.ask("GET", "/livez").status == 200
    before = resident(gateway)
    with connect(gateway.address, 60) as made:
        made.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: parry\r\n{framing}\r\n\r\n".encode())
        if "chunked" in framing:
            made.sendall(b"%x\r\n" % (200 * MIB))
        pushed = push(made, 200 * MIB)
        made.settimeout(30)
        got = made.recv(65536)
        assert got.startswith(b"HTTP/1.1 413 "), got
    grown = peak(gateway) - before
    print(f"{framing}: {pushed / MIB:.1f} MiB taken, RSS +{grown / MIB:.1f} MiB")
    assert pushed < 200 * MIB and grown < 48 * MIB
    assert not provider.asked
    gateway.wait_idle()


def test_a_trickled_head_ends(start):
    """By the deadline, which no single byte moves."""
    gateway = gateway_for(start, "http://127.0.0.1:9")
    with connect(gateway.address, 60) as made:
        made.sendall(b"GET /v1/models HTTP/1.1\r\nX-Slow: ")
        bytes_sent = 0
        while not select.select([made], [], [], 0.05)[0]:
            made.sendall(b"x")
            bytes_sent += 1
            assert bytes_sent < 1000
        assert made.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert raw(gateway.address, b"GET /livez HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200 ")
