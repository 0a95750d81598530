"""Bodies too long to be kept, through a live gateway.

Shows: 200 MiB cost no memory, whoever is slow; Content-Length stays, chunks stay chunks; one attempt once a byte has
left, and the log says why; until then another target gets its own model and the right length; a refusal in the middle
reaches the client in the provider's words; who dies in the middle, client or provider, is noticed by the other.
"""

import contextlib
import hashlib
import json
import re
import threading

import pytest

from harness import Asked, Provider, chunk, connect, failure, ok, refused_port, wait_until

MIB = 1024 * 1024
FILLING = bytes(range(97, 123)) * 2521  # 65546 bytes, so that no piece looks like its neighbour


class Taker(Provider):
    """A provider whose steps read the body themselves; `asked.body` is what came along with the head."""

    def _read_request(self, made):
        data = b""
        made.settimeout(20)
        while b"\r\n\r\n" not in data:
            piece = made.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = first.split(" ")
        return Asked(self, made, method, path, headers, body)


class Body:
    """Reads the body of a request as it comes, keeping only its digest and its beginning."""

    def __init__(self, asked):
        self.asked, self.size, self.digest, self.beginning = asked, 0, hashlib.sha256(), b""
        self.rest = asked.body

    def more(self):
        piece, self.rest = self.rest or self.asked.made.recv(256 * 1024), b""
        return piece

    def take(self, data):
        self.size += len(data)
        self.digest.update(data)
        self.beginning += data[:4096 - len(self.beginning)] if len(self.beginning) < 4096 else b""

    def read(self):
        """All of it, by its length or its chunks; False when it broke off."""
        if "content-length" in self.asked.headers:
            while self.size < int(self.asked.headers["content-length"]):
                piece = self.more()
                if not piece:
                    return False
                self.take(piece)
            return True
        assert self.asked.headers["transfer-encoding"] == "chunked"
        kept = b""
        while True:
            while b"\r\n" not in kept:
                piece = self.more()
                if not piece:
                    return False
                kept += piece
            line, _, kept = kept.partition(b"\r\n")
            size = int(line, 16)
            while len(kept) < size + 2:
                piece = self.more()
                if not piece:
                    return False
                kept += piece
            self.take(kept[:size])
            kept = kept[size + 2:]
            if not size:
                return True


def taking(bodies, reply=None, gate=None):
    """A step that takes the whole body, once `gate` is open, and answers."""
    def step(asked):
        if gate:
            gate.wait(20)
        body = Body(asked)
        bodies.append(body)
        if not body.read():
            return False
        asked.send(reply or ok())
        return True
    return step


def pieces(size, start=b'{"model":"m","pad":"', end=b'"}'):
    """A JSON body of `size` bytes, one piece after the other."""
    yield start
    left = size - len(start) - len(end)
    while left > 0:
        yield FILLING[:left]
        left -= len(FILLING)
    yield end


def digest(size, **parts):
    made = hashlib.sha256()
    for piece in pieces(size, **parts):
        made.update(piece)
    return made.hexdigest()


def begin(gateway, size=None):
    made = connect(gateway.address)
    framing = f"Content-Length: {size}" if size is not None else "Transfer-Encoding: chunked"
    made.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
                 .encode())
    return made


def send_all(made, size, chunked=False, **parts):
    """False: the other side would not take it all."""
    try:
        for piece in pieces(size, **parts):
            made.sendall(chunk(piece) if chunked else piece)
        if chunked:
            made.sendall(b"0\r\n\r\n")
    except OSError:
        return False
    return True


def reply_of(made):
    got = b""
    made.settimeout(20)
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in got:
            piece = made.recv(65536)
            if not piece:
                break
            got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
        while len(body) < length:
            piece = made.recv(65536)
            if not piece:
                break
            body += piece
        return int(head.split()[1]), body
    return None, got


def post(gateway, size, chunked=False, **parts):
    """The answer to an upload, however much of it was taken."""
    with begin(gateway, None if chunked else size) as made:
        threading.Thread(target=send_all, args=(made, size, chunked), kwargs=parts, daemon=True).start()
        return reply_of(made)


def gateway_for(start, provider, chain="", more=""):
    return start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}
{more}
route "/v1/*" {{ to = "p", chain = {{ {chain} use "alert" }} }}
""", *(["--max-body", "300M"]))


def resident(gateway):
    """Bytes of memory the gateway's process has in use."""
    with open(f"/proc/{gateway.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def sanitized(gateway):
    with open(f"/proc/{gateway.process.pid}/maps") as maps:
        return any(name in maps.read() for name in ("libasan", "libtsan"))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_200_mib_cost_no_memory(start, chunked):
    bodies, gate, size = [], threading.Event(), 200 * MIB
    provider = start.keep(Taker(taking(bodies, gate=gate)))
    gateway = gateway_for(start, provider)
    before = resident(gateway)
    with begin(gateway, None if chunked else size) as made:
        sender = threading.Thread(target=send_all, args=(made, size, chunked), daemon=True)
        sender.start()
        wait_until(lambda: provider.asked, "the provider was asked")
        stalled = resident(gateway)  # it takes nothing yet
        gate.set()
        status, _ = reply_of(made)
        sender.join(20)
    after = resident(gateway)
    assert status == 200 and bodies[0].size == size and bodies[0].digest.hexdigest() == digest(size)
    assert ("content-length" in bodies[0].asked.headers) == (not chunked)
    kept = 16 * MIB if chunked else 0  # without a length, it is kept until it proves too long
    print(f"resident: before {before >> 10} KiB, stalled {stalled >> 10} KiB, after {after >> 10} KiB")
    if not sanitized(gateway):
        assert max(stalled, after) - before < 8 * MIB + 2 * kept
    assert gateway.wait_idle()["replay_bytes"] == 0


def test_a_sent_body_has_one_attempt_and_the_log_says_why(start):
    bodies = []
    provider = start.keep(Taker(taking(bodies, failure(503, "busy", headers={"retry-after": "0"}))))
    gateway = gateway_for(start, provider, 'use "retry" { max_attempts = 4, base = 0.01, cap = 0.02 },')
    status, body = post(gateway, 20 * MIB)
    assert status == 503 and json.loads(body)["error"]["message"] == "busy"
    assert len(provider.asked) == 1
    refused = gateway.wait_log("verdict not carried out")
    assert refused["verdict"] == "retry" and refused["because"] == "body not kept"


def test_an_unsent_body_goes_elsewhere_with_its_model_changed(start):
    bodies, size = [], 20 * MIB
    other = start.keep(Taker(taking(bodies)))
    port, holder = refused_port()
    with holder:
        gateway = start.gateway(f"""
provider "p" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}
provider "q" {{ base_url = "{other.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", chain = {{ use "fallback_model" {{ models = {{ ["m"] = {{ "q/another" }} }} }} }} }}
""")
        status, _ = post(gateway, size)
    assert status == 200
    assert bodies[0].beginning.startswith(b'{"model":"another","pad":"')
    assert int(bodies[0].asked.headers["content-length"]) == size + len("another") - len("m")
    assert bodies[0].digest.hexdigest() == digest(size + 6, start=b'{"model":"another","pad":"')


@pytest.mark.parametrize("status", [413, 401])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_refusal_in_the_middle_reaches_the_client(start, status, chunked):
    def refuse(asked):
        asked.send(failure(status, "not that much"))
        asked.hang()

    provider = start.keep(Taker(refuse))
    gateway = gateway_for(start, provider)
    with begin(gateway, None if chunked else 200 * MIB) as made:
        beginning = b'{"model":"m","pad":"' + FILLING + FILLING
        made.sendall(chunk(beginning) if chunked else beginning)
        if chunked:  # what is not kept begins after 16 MiB
            for _ in range(260):
                made.sendall(chunk(FILLING))
        got, body = reply_of(made)  # and the client has not sent the rest
    assert got == status and json.loads(body)["error"]["message"] == "not that much"


def test_a_client_that_leaves_in_the_middle_is_noticed(start):
    left = threading.Event()

    def take(asked):
        body = Body(asked)
        assert not body.read()
        left.set()

    provider = start.keep(Taker(take))
    gateway = gateway_for(start, provider)
    with begin(gateway, 100 * MIB) as made:
        made.sendall(b'{"model":"m","pad":"' + FILLING * 40)
        wait_until(lambda: provider.asked, "the provider was asked")
    assert left.wait(5)
    entry = gateway.wait_log("call")
    assert entry["outcome"] == "cancelled" and entry["attempts"] == 1


def test_a_provider_that_dies_in_the_middle(start):
    def die(asked):
        body = Body(asked)
        while body.size < 2 * MIB:
            body.take(body.more())

    provider = start.keep(Taker(die, otherwise=ok()))
    gateway = gateway_for(start, provider, 'use "retry" { max_attempts = 4, base = 0.01, cap = 0.02 },')
    status, body = post(gateway, 100 * MIB)
    if status is not None:  # the client was still sending, and may have lost the answer to a reset
        error = json.loads(body)["error"]
        assert status == 502 and error["code"] == "network", error
        assert "127.0.0.1" not in error["message"] and provider.address not in body.decode()
    assert gateway.wait_log("call")["outcome"] == "network"
    assert len(provider.asked) == 1
    assert gateway.wait_log("connection failed")["error"]


def test_no_client_hears_where_the_provider_is(start):
    port, holder = refused_port()
    with holder:
        gateway = start.gateway(f"""
provider "p" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", chain = {{ use "alert" }} }}
""")
        reply = gateway.chat("m")
    assert reply.status == 502 and reply.json()["error"]["message"] == "the provider could not be reached", reply
    assert str(port) not in reply.text + str(reply.headers)
    assert str(port) in gateway.wait_log("connection failed")["error"]


@pytest.mark.parametrize("where", ["in the kept part", "behind it"])
def test_a_route_without_a_rule_for_all_needs_the_model_early(start, where):
    bodies = []
    provider = start.keep(Taker(otherwise=taking(bodies)))
    gateway = start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = by_model {{ ["m*"] = "p" }}, chain = {{ use "alert" }} }}
""")
    if where == "behind it":
        status, body = post(gateway, 20 * MIB, start=b'{"pad":"', end=b'","model":"m"}')
        assert (status is None) or (status == 404 and b"put `model`" in body), body
        assert gateway.wait_log("call")["outcome"] == "not_found"
    else:
        status, _ = post(gateway, 20 * MIB)
        assert status == 200 and bodies[0].size == 20 * MIB


def test_a_body_longer_than_any_may_be_is_cut(start):
    bodies = []
    provider = start.keep(Taker(otherwise=taking(bodies)))
    gateway = gateway_for(start, provider)
    with begin(gateway, 301 * MIB) as made:
        assert reply_of(made)[0] == 413
    with begin(gateway) as made:
        sender = threading.Thread(target=send_all, args=(made, 310 * MIB, True), daemon=True)
        sender.start()
        status, _ = reply_of(made)
        sender.join(20)
    assert status in (413, None)
    assert wait_until(lambda: bodies and bodies[0], "the provider was asked").size <= 300 * MIB
    gateway.wait_log("call", lambda entry: entry["outcome"] == "cancelled")
