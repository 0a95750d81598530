"""Requests and files that are refused before anything is sent, one shape of errors, and faults on purpose: over real
sockets, with the exact number of requests that reach providers and file servers."""

import json
import socket
import threading
import time

import pytest

from harness import PATIENCE, Provider, answer, failure, ok, run_parry, stream_head, wait_until

KEY = {"KEY": "sk-guards-0123456789"}

INIT = """
provider "up" {{ base_url = "{up}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "claude" {{ base_url = "{up}/v1/messages", dialect = "anthropic", auth = bearer(secret "KEY") }}
route "/v1/*" {{ to = "up", deadline = 20, timeouts = {{ connect = 5, first_byte = 10, idle = 10 }}, chain = {{ {chain} }} }}
route "/v1/messages*" {{ to = "claude", deadline = 20, chain = {{ {chain} }} }}
"""


def gateway(start, up, chain, *arguments):
    return start.gateway(INIT.format(up=up.url, chain=chain), *arguments, env=KEY)


def responses(files):
    return {"model": "m", "input": [{"role": "user", "content": [
        {"type": "input_file", "file_url": url} for url in files]}]}


# --- validate -----------------------------------------------------------------------------------------------


def test_wrong_requests_reach_nobody_and_name_every_field(start):
    up = start.provider(ok())
    parry = gateway(start, up, 'use "validate" { max_messages = 50 }')
    reply = parry.chat("m", temperature=9, stream="yes", max_tokens=0, n=0)
    assert reply.status == 400, reply
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "stream"
    assert [row["field"] for row in error["details"]] == ["stream", "temperature", "n", "max_tokens"]
    for row in error["details"]:
        assert row["field"] in error["message"]
    assert reply.headers["parry-attempts"] == "0"
    reply = parry.post("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": ""}]})
    assert reply.status == 400, reply
    assert reply.json()["type"] == "error"
    assert "messages[0].content" in reply.json()["error"]["message"]
    assert "max_tokens: is missing" in reply.json()["error"]["message"]
    assert len(up.asked) == 0
    assert parry.chat("m").status == 200
    assert len(up.asked) == 1


def test_long_bodies_are_checked_within_the_budget_or_passed(start):
    """16 MiB of picture is looked at; 16 MiB of parts is more than a policy may look at, and is no fault of it."""
    up = start.provider(otherwise=ok())
    parry = gateway(start, up, 'use "validate" { max_image = 20000000 }')
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (15 * 1024 * 1024)}}
    reply = parry.chat("m", text=[picture], temperature=9)
    assert reply.status == 400, reply
    assert reply.json()["error"]["param"] == "temperature"
    assert len(up.asked) == 0
    assert parry.chat("m", text=[picture]).status == 200
    assert len(up.asked) == 1
    pictures = b'"' + b"A" * (13 * 1024 * 1024) + b'"'
    part = b'{"type":"image_url","image_url":{"url":""}},{"type":5},'
    worst = (b'{"model":"m","x":' + pictures + b',"messages":[' + b'{"role":"critic","content":5},' * 2900
             + b'{"role":"user","content":[' + part * 80 + b'1]}],"y":"' + b"\\u00e9" * 80 + b'"}')
    wide = b'{"model":"m","messages":{' + b",".join(b'"k%d":0' % n for n in range(60000)) + b"}}"
    for text in (worst, wide):
        reply = parry.post("/v1/chat/completions", text, {"content-type": "application/json"})
        assert reply.status in (200, 400), reply
        assert parry.status()["faults"] == 0, parry.status()["last_faults"]
    del up.asked[:]
    for text in (b'{"model":"m","messages":[' + b"[]," * (1024 * 1024) + b"1]}",
                 b'{"model":"m","messages":[' + b'{"role":"user","content":"x"},' * 100000 + b"1]}",
                 b'{"model":"m","x":"' + b"\\n" * (2 * 1024 * 1024) + b'","messages":[{"role":"user","content":"x"}]}',
                 b'{"model":"m","x":"' + b"A" * (20 * 1024 * 1024) + b'"}'):
        before = len(up.asked)
        reply = parry.post("/v1/chat/completions", text, {"content-type": "application/json"})
        assert reply.status == 200, reply
        assert len(up.asked) == before + 1
        assert up.asked[-1].body == text
    assert parry.status()["faults"] == 0


# --- file_check ----------------------------------------------------------------------------------------------


class Files(Provider):
    """A file server: what it says by path, and how many connections it had."""

    PAGES = {
        "/good.pdf": answer(200, b"", {"Content-Type": "application/pdf"}),
        "/page.html": answer(200, b"", {"Content-Type": "text/html"}),
    }

    def __init__(self, pages=None):
        self.pages = {**self.PAGES, **(pages or {})}
        super().__init__(otherwise=self._answer)

    def _answer(self, asked):
        page = self.pages.get(asked.path.split("?")[0])
        if callable(page):
            return page(asked)
        asked.send(page or b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return True


def head(status, **fields):
    lines = [f"HTTP/1.1 {status} Scripted"] + [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_files_are_looked_at_before_the_provider_is_asked(start):
    up = start.provider(otherwise=ok())
    files = start.keep(Files({
        "/huge.pdf": head(200, Content_Type="application/pdf", Content_Length=104857601),
        "/fits.pdf": head(200, Content_Type="application/pdf", Content_Length=104857600),
        "/moved.pdf": head(302, Location="/fits.pdf?sig=1", Content_Length=0)}))
    parry = gateway(start, up, 'use "file_check"', "--allow-probe", files.address)
    reply = parry.post("/v1/responses", responses([files.url + "/fits.pdf?token=s3cret", files.url + "/moved.pdf"]))
    assert reply.status == 200, reply
    assert len(up.asked) == 1
    assert [(asked.method, asked.path) for asked in files.asked] == [
        ("HEAD", "/fits.pdf?token=s3cret"), ("HEAD", "/moved.pdf"), ("HEAD", "/fits.pdf?sig=1")]
    for asked in files.asked:
        assert "authorization" not in asked.headers and "cookie" not in asked.headers
        assert KEY["KEY"] not in str(asked.headers)
    reply = parry.post("/v1/responses", responses([files.url + "/huge.pdf?token=s3cret"]))
    assert reply.status == 413, reply
    assert reply.json()["error"]["code"] == "file_too_large"
    assert "input[0].content[0].file_url" in reply.text and "/huge.pdf" in reply.text
    assert "s3cret" not in reply.text
    reply = parry.post("/v1/responses", responses([files.url + "/page.html", files.url + "/none.pdf"]))
    assert reply.status == 400, reply
    assert [row["code"] for row in reply.json()["error"]["details"]] == ["file_type_not_allowed", "file_unreachable"]
    assert len(up.asked) == 1
    known = len(files.asked)
    assert parry.post("/v1/responses", responses([files.url + "/fits.pdf?token=s3cret"])).status == 200
    assert len(files.asked) == known  # remembered
    assert "s3cret" not in parry.output
    assert "s3cret" not in parry.ask("GET", "/api/v1/events").text


# Every way to say "this machine" or "the inside" that a URL has. All lead to a server that must never hear of it.
INSIDE = """127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 017700000001 0177.0.0.1 0 0.0.0.0 localhost
localhost. [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:127.0.0.1] [64:ff9b::7f00:1] 127.0.0.1.
LOCALHOST 127.255.255.254""".split()


def test_no_spelling_of_the_inside_is_asked(start):
    up = start.provider()
    inside = start.keep(Files())
    port = inside.address.rpartition(":")[2]
    parry = gateway(start, up, 'use "file_check" { timeout = 2, max_urls = 32 }')
    urls = [f"http://{host}:{port}/good.pdf?n={n}" for n, host in enumerate(INSIDE)]
    urls += ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/x.pdf", "http://10.0.0.1/x.pdf",
             f"http://user@127.0.0.1:{port}/", f"http://127.0.0.1:{port}\\@files.example/"]
    for url in urls:
        reply = parry.post("/v1/responses", responses([url]))
        assert reply.status == 400, (url, reply)
        code = reply.json()["error"]["code"]
        assert code in ("file_not_public", "invalid_file_url", "file_unreachable"), (url, reply)
        if "user@" not in url and "\\" not in url and "64:ff9b" not in url and not url.split("/")[2].split(":")[0].endswith("."):
            assert code == "file_not_public", (url, reply)
    assert len(inside.asked) == 0
    assert len(up.asked) == 0


def test_no_redirect_leads_inside(start):
    up = start.provider()
    inside = start.keep(Files())
    port = inside.address.rpartition(":")[2]
    places = [f"http://{host}:{port}/good.pdf" for host in INSIDE] + [
        "http://169.254.169.254/latest/meta-data/", f"//127.0.0.1:{port}/good.pdf", f"http://a:b@127.0.0.1:{port}/",
        "file:///etc/passwd", "gopher://127.0.0.1:%s/" % port]
    outside = start.keep(Files({f"/{n}.pdf": head(302, Location=place, Content_Length=0)
                                for n, place in enumerate(places)}))
    parry = gateway(start, up, 'use "file_check" { timeout = 2 }', "--allow-probe", outside.address)
    for n, place in enumerate(places):
        reply = parry.post("/v1/responses", responses([f"{outside.url}/{n}.pdf"]))
        assert reply.status == 400, (place, reply)
    assert len(inside.asked) == 0
    assert len(up.asked) == 0
    assert len(outside.asked) == len(places)


def test_a_policy_cannot_allow_itself_anything(start):
    """Only the command line exempts a host: a policy that asks has nowhere to say so."""
    up = start.provider()
    inside = start.keep(Files())
    folder = start.folder(INIT.format(up=up.url, chain='use "nosy"'))
    folder.write("nosy.lua", 'return policy { name = "nosy", on_request = function(self, call)\n'
                 f'  local a, err = http.probe {{ url = "{inside.url}/good.pdf" }}\n'
                 '  return respond { status = 418, body = { said = a and a.status or err.category } }\nend }\n')
    parry = start.gateway(folder, env=KEY)
    assert parry.chat("m").json() == {"said": "permission"}
    assert len(inside.asked) == 0


def endless_head(asked):
    asked.send(b"HTTP/1.1 200 OK\r\n")
    try:
        while not asked.provider.stopping.is_set():
            asked.send(b"X-More: " + b"y" * 1000 + b"\r\n")
    except OSError:
        pass


def dripping_head(asked):
    try:
        while not asked.provider.stopping.is_set():
            asked.send(b"H")
            asked.provider.stopping.wait(0.1)
    except OSError:
        pass


def test_files_are_found_in_any_body(start):
    """However long the body and however many its parts: a file that is not looked at is not passed on."""
    up = start.provider()
    parry = gateway(start, up, 'use "file_check"')
    bad = b'{"type":"input_file","file_url":"http://127.0.0.1/x.pdf"}'
    for text, status in (
            (b'{"model":"m","input":["' + b"A" * (15 * 1024 * 1024) + b'",' + bad + b"]}", 400),
            (b'{"model":"m","input":[' + b'{"a":0},' * 80000 + bad + b"]}", 400),
            (b'{"model":"m","metadata":{' + b",".join(b'"k%d":0' % n for n in range(100000)) + b'},"input":[' + bad + b"]}", 400),
            (b'{"model":"m","input":[' + b"[" * 50 + bad + b"]" * 50 + b"]}", 400),
            (b'{"model":"m","input":[' + bad.replace(b"file_url", b"file_\\u0075rl") + b"]}", 400),
            (b'{"model":"m","input":[' + b"[]," * (1024 * 1024) + bad + b"]}", 413)):
        reply = parry.post("/v1/responses", text, {"content-type": "application/json"})
        assert reply.status == status, (text[-200:], reply)
        assert parry.status()["faults"] == 0
    reply = parry.post("/v1/responses", b'{"model":"m","input":[' + bad + b"]}", {"content-type": "text/plain"})
    assert reply.status == 400, reply
    too_long = b'{"model":"m","input":["' + b"A" * (17 * 1024 * 1024) + b'",' + bad + b"]}"
    try:
        reply = parry.post("/v1/responses", too_long, {"content-type": "application/json"})
        assert reply.status == 413, reply
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was answered before all of it was sent
    assert len(up.asked) == 0


def test_hostile_file_servers_cost_one_answer(start):
    up = start.provider()
    files = start.keep(Files({
        "/endless.pdf": endless_head,
        "/drip.pdf": dripping_head,
        "/hang.pdf": lambda asked: asked.hang(),
        "/close.pdf": lambda asked: None,
        "/garbage.pdf": lambda asked: asked.send(b"\x00\xff" * 4096),
        "/body.pdf": head(405, Content_Length=0),
        "/round.pdf": head(301, Location="/round.pdf", Content_Length=0),
        "/lies.pdf": head(200, Content_Type="application/pdf", Content_Length="99999999999999999999")}))
    parry = gateway(start, up, 'use "file_check" { timeout = 0.5, max_urls = 32 }', "--allow-probe", files.address)
    for name in ("endless", "drip", "hang", "close", "garbage", "body", "lies"):
        began = time.monotonic()
        reply = parry.post("/v1/responses", responses([f"{files.url}/{name}.pdf"]))
        assert reply.status in (400, 413), (name, reply)
        assert time.monotonic() - began < PATIENCE
    before = len(files.asked)
    reply = parry.post("/v1/responses", responses([f"{files.url}/round.pdf"]))
    assert reply.status == 400, reply
    assert len(files.asked) == before + 4
    assert len(up.asked) == 0
    assert parry.status()["faults"] == 0


def test_a_client_that_leaves_takes_its_probe_along(start):
    up = start.provider()
    left = threading.Event()

    def hang(asked):
        asked.hang()
        left.set()

    files = start.keep(Files({"/hang.pdf": hang}))
    parry = gateway(start, up, 'use "file_check" { timeout = 10 }', "--allow-probe", files.address)
    body = json.dumps(responses([files.url + "/hang.pdf"])).encode()
    host, _, port = parry.address.rpartition(":")
    with socket.create_connection((host, int(port))) as made:
        made.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: parry\r\nContent-Type: application/json\r\nContent-Length: %d"
                     b"\r\n\r\n" % len(body) + body)
        wait_until(lambda: files.asked, "the probe")
    assert left.wait(PATIENCE)
    parry.wait_idle()


def test_many_urls_are_too_many(start):
    up = start.provider()
    files = start.keep(Files())
    parry = gateway(start, up, 'use "file_check" { max_urls = 4 }', "--allow-probe", files.address)
    reply = parry.post("/v1/responses", responses([f"{files.url}/good.pdf?{n}" for n in range(5000)]))
    assert reply.status == 400, reply
    assert reply.json()["error"]["code"] == "too_many_files"
    assert len(files.asked) == 0


# --- standard_errors --------------------------------------------------------------------------------------------


FIELDS = {"code", "message", "statusCode", "requestId", "timestamp", "details", "path", "method", "traceId"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_one_shape_whatever_went_wrong(start):
    html = answer(502, b"<html><body>nginx at 10.1.2.3</body></html>", {"Content-Type": "text/html"})
    up = start.provider(
        answer(500, {"error": {"message": "Traceback at /srv/app.py", "type": "x", "code": None}}), html,
        answer(200, {"errcode": -2006, "errmsg": "quota", "data": None}),
        lambda asked: None,
        answer(429, {"error": {"message": "slow down org-12345", "type": "rate_limit_error", "code": "x"}},
               {"Retry-After": "3", "X-Envoy-Upstream": "inside-7"}))
    parry = start.gateway(INIT.format(up=up.url, chain='use "standard_errors", use "validate" { style = "house" }').replace(
        'dialect = "openai"', 'dialect = "kimi"'), env=KEY)
    want = [(500, "server"), (502, "server"), (402, "billing"), (502, "network"), (429, "rate_limit")]
    for status, code in want:
        reply = parry.chat("m", {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        told = reply.json()
        assert reply.status == status, reply
        assert set(told) == FIELDS, told
        assert told["statusCode"] == status and told["code"] == code, told
        assert told["requestId"] == reply.call_id
        assert told["path"] == "/v1/chat/completions" and told["method"] == "POST" and told["traceId"] == TRACE
        for inside in ("Traceback", "nginx", "10.1.2.3", "org-12345", "/srv", up.address):
            assert inside not in reply.text
        assert "x-envoy-upstream" not in reply.headers
    assert reply.headers["retry-after"] == "3"
    reply = parry.chat("m", temperature=9)
    assert reply.status == 400 and set(reply.json()) == FIELDS
    assert reply.json()["details"][0]["field"] == "temperature"
    assert len(up.asked) == 5


def test_a_stream_that_breaks_ends_in_that_shape(start):
    def cut(asked):
        event = b'data: {"choices":[{"index":0,"delta":{"content":"hel"}}]}\n\n'
        asked.send(stream_head() + b"%x\r\n%s\r\n" % (len(event), event))

    up = start.provider(cut)
    parry = gateway(start, up, 'use "standard_errors"')
    reply = parry.chat("m", stream=True)
    assert reply.status == 200 and reply.whole, reply
    last = reply.events()[-1]
    assert set(last) == FIELDS and last["statusCode"] == 502, reply


# --- chaos ----------------------------------------------------------------------------------------------------------


CHAOS = '''use "circuit_breaker" { failures = 3, cooldown = 60 },
  use "chaos" { experiments = { down = { category = "overloaded", retry_after = 1 },
                                half = { category = "server", rate = 0.5 } } }'''


def test_experiments_are_armed_and_end_at_run_time(start):
    up = start.provider(otherwise=ok())
    parry = gateway(start, up, CHAOS)
    assert parry.chat("m").status == 200
    assert parry.command("chaos", "status").stdout == 'chaos: experiments "down", "half"\n  nothing is armed\n'
    done = parry.command("chaos", "arm", "nothing", "--for", "1m")
    assert done.returncode == 1 and "no such experiment" in done.stderr
    for wrong in (("arm",), ("arm", "down"), ("arm", "down", "--for", "soon"), ("begin",), (),
                  ("arm", "down", "--for", "1m", "--rate", "2"), ("off", "--rate", "1"), ("arm", "a b", "--for", "1m")):
        assert parry.command("chaos", *wrong).returncode == 2, wrong
    done = parry.command("chaos", "arm", "down", "--for", "10m")
    assert done.returncode == 0, done
    assert 'ARMED "down"' in done.stdout
    assert parry.status()["chaos"][0]["experiment"] == "down"
    assert "down ARMED by chaos" in parry.command("status").stdout
    before = len(up.asked)
    for _ in range(3):
        reply = parry.chat("m")
        assert reply.status == 529 and reply.headers["retry-after"] == "1", reply
    reply = parry.chat("m")
    assert reply.status == 503 and reply.json()["error"]["code"] == "circuit_open", reply  # the breaker believed it
    assert len(up.asked) == before
    assert parry.metrics()['parry_verdicts_total{policy="chaos",verdict="inject"}'] == 3
    assert parry.log("chaos arm")[0]["level"] == "warn"
    assert parry.command("chaos", "off").returncode == 0
    assert parry.status()["chaos"] == []
    assert parry.chat("other").status == 200
    assert len(up.asked) == before + 1


def test_the_admin_api_says_what_it_does_not_take(start):
    up = start.provider()
    parry = gateway(start, up, CHAOS)
    for query in ("", "?do=arm", "?do=arm&experiment=down", "?do=off&experiment=%22", "?do=arm&experiment=down&for=x",
                  "?do=arm&experiment=down&for=5&rate=y", "?do=arm&experiment=down&for=5&rate=2",
                  "?do=arm&experiment=down&for=86401"):
        reply = parry.ask("POST", "/api/v1/chaos" + query)
        assert reply.status == 400, (query, reply)
    reply = parry.ask("DELETE", "/api/v1/chaos")
    assert reply.status == 405 and reply.headers["allow"] == "GET, POST"
    assert parry.ask("GET", "/api/v1/chaos").json()["instances"][0]["report"]["known"] == ["down", "half"]


def test_without_the_policy_there_is_nothing_to_arm(start):
    up = start.provider()
    parry = gateway(start, up, 'use "retry"')
    done = parry.command("chaos", "arm", "down", "--for", "1m")
    assert done.returncode == 1 and "no chain has use" in done.stderr


def test_check_warns_of_what_is_armed_in_the_file(start):
    folder = start.folder(INIT.format(up="http://127.0.0.1:9", chain='use "chaos" { experiments = { down = { status = 500 } }, '
                                      'armed = { "down" }, until_time = "2099-01-01T00:00Z" }'))
    done = run_parry("check", folder.path, env=KEY)
    assert done.returncode == 0, done
    assert "chaos: armed until 2099-01-01T00:00Z: calls fail on purpose (down)" in done.stdout + done.stderr


def test_the_sim_and_chaos_agree(start):
    """What the simulator does when asked, chaos does without it: the same category by the same words."""
    sim = start.sim("--no-scripted")
    parry = gateway(start, sim, 'use "chaos" { allow_requests = true }')
    for code, status in (("429", 429), ("500", 500), ("503", 503), ("401", 401)):
        ours = parry.chat("m", {"x-parry-fault": code})
        assert ours.status == status, ours
        assert ours.json()["error"]["message"]
    assert sim.stats()["total"] == 0
    theirs = parry.chat("m", {"x-sim-fault": "code=429"})
    assert theirs.status == 429
    assert sim.stats()["total"] == 1


# --- on_failure, in the hands of a policy that is none of ours --------------------------------------------------------


@pytest.mark.parametrize("body, faults", [
    ('http.probe { url = "https://files.invalid/" } return respond { status = 400, body = "late" }', 0),
    ('error("broken")', 1),
    ("return retry { after = 1 }", 1),
    ("while true do end", 1),
    ("return nil", 0),
])
def test_who_says_nothing_of_use_leaves_the_providers_error(start, body, faults):
    up = start.provider(otherwise=answer(500, {"error": {"message": "theirs"}}))
    folder = start.folder(INIT.format(up=up.url, chain='use "shape"'))
    folder.write("shape.lua", f'return policy {{ name = "shape", on_failure = function(self, call, err) {body} end }}\n')
    parry = start.gateway(folder, env=KEY)
    for _ in range(3):
        reply = parry.chat("m")
        assert reply.status == 500 and reply.json()["error"]["message"] == "theirs", reply
    assert parry.status()["faults"] == 3 * faults


def test_an_error_never_becomes_a_success(start):
    up = start.provider(failure(500), failure(503), failure(404))
    folder = start.folder(INIT.format(up=up.url, chain='use "shape"'))
    folder.write("shape.lua", 'return policy { name = "shape", on_failure = function(self, call, err)\n'
                 '  return respond { status = err.status == 500 and 200 or err.status == 503 and 302 or 410,\n'
                 '                   headers = { ["x-shape"] = err.category }, body = { said = err.status } }\nend }\n')
    parry = start.gateway(folder, env=KEY)
    for status, told, shape in ((500, 500, "server"), (503, 503, "overloaded"), (404, 410, "not_found")):
        reply = parry.chat("m")
        assert reply.status == told and reply.json() == {"said": status}, reply
        assert reply.headers["x-shape"] == shape
    wait_until(lambda: len(parry.log("call")) == 3, "the log of three calls")
    assert [entry["outcome"] for entry in parry.log("call")] == ["server", "overloaded", "not_found"]


def test_a_failure_is_shaped_by_the_policies_that_serve_now(start):
    """A stream that began under one generation ends in the shape of the next."""
    go = threading.Event()

    def cut(asked):
        event = b'data: {"choices":[{"index":0,"delta":{"content":"hel"}}]}\n\n'
        asked.send(stream_head() + b"%x\r\n%s\r\n" % (len(event), event))
        go.wait(PATIENCE)

    up = start.provider(cut)
    folder = start.folder(INIT.format(up=up.url, chain=""))
    parry = start.gateway(folder, env=KEY)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(parry.chat("m", stream=True)))
    thread.start()
    wait_until(lambda: parry.status()["calls_open"] == 1 and up.asked, "the stream")
    folder.write("init.lua", INIT.format(up=up.url, chain='use "standard_errors"'))
    assert parry.command("reload", "--wait").returncode == 0
    go.set()
    thread.join(PATIENCE)
    last = replies[0].events()[-1]
    assert set(last) == FIELDS and last["statusCode"] == 502, replies
