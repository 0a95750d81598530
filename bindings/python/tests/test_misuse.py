"""What demanding and careless programs do to the package, each of which once went wrong."""

import asyncio
import functools
import gc
import gzip
import http.server
import os
import pickle
import subprocess
import sys
import threading
import time

import httpx
import pytest

import harness
import parry
from conftest import PACKAGE, QUESTION, fault, init
from parry._core import _registry
from parry.httpx import AsyncParryTransport, ParryTransport

try:
    import h2  # noqa: F401
    H2 = True
except ImportError:  # httpx refuses the flag then
    H2 = False

PATH = "/v1/chat/completions"
STREAM = {**QUESTION, "stream": True}


def ended(engine):
    harness.wait_until(lambda: engine.status().open == 0, "the calls to end")


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name.replace("_", "-"), one)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/endless":
            self.send_response(200)
            self.send_header("content-type", "application/octet-stream")
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass
        elif self.path == "/wrong":
            self.answer(400, b'{"error":{"message":"' + b"x" * 700_000 + b'"}}', content_type="application/json")
        elif self.path == "/gzip":
            self.answer(200, gzip.compress(b'{"said":"hello"}'), content_type="application/json", content_encoding="gzip")
        elif self.path == "/moved":
            self.answer(302, b"", location="http://elsewhere.invalid/there")
        elif self.path == "/cookies":
            self.answer(200, self.headers.get("cookie", "").encode(), set_cookie=["a=1", "b=2"])
        else:
            self.answer(200, sent or b"there", content_type="application/octet-stream")

    do_POST = do_PUT = do_HEAD = do_GET


@pytest.fixture
def provider():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(20)
    server.server_close()


@pytest.fixture
def plain(make, provider):
    """An engine whose provider is no LLM."""
    def plain(**options):
        return make(init_lua=f"""
provider "any" {{ base_url = "http://{provider}", dialect = "generic" }}
route "/*" {{ to = "any", deadline = 20, chain = {{ use "retry" {{ max_attempts = 2 }} }} }}
""", **options)
    return plain


# ---- streams and calls -------------------------------------------------------------------------------------------------


def test_a_wait_that_was_given_up_may_be_begun_again(engine):
    """The wait's future was kept after its cancellation, and cancelled whoever read next."""
    async def main():
        async with engine.astream(PATH, json=STREAM, headers=fault("stall-after")) as stream:
            assert await stream.__anext__()
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    while True:
                        await asyncio.wait_for(stream.__anext__(), 0.1)

    asyncio.run(main())


@pytest.mark.parametrize("threads", [0, 1])
def test_an_answer_over_the_limit_ends_at_once(plain, threads):
    """It was read to its end, which may never come."""
    engine = plain(max_answer=1_000_000, threads=threads)
    with pytest.raises(parry.PayloadTooLargeError, match="max_answer"):
        engine.call("/endless", method="GET")
    ended(engine)
    with pytest.raises(parry.PayloadTooLargeError, match="max_answer"):
        asyncio.run(engine.acall("/endless", method="GET"))
    ended(engine)


def test_a_long_error_of_a_stream_is_raised(plain):
    """Above what is read ahead nobody read it, and its end never came."""
    engine = plain()
    with pytest.raises(parry.InvalidRequestError):
        engine.stream("/wrong", method="GET")

    async def main():
        with pytest.raises(parry.InvalidRequestError):
            async with engine.astream("/wrong", method="GET"):
                pass

    asyncio.run(main())
    ended(engine)


def test_a_dropped_stream_ends_its_call(engine):
    """It stayed open, and was held back for good."""
    stream = engine.stream(PATH, json=STREAM, headers=fault("stall-after"))
    assert next(stream)
    del stream
    gc.collect()
    ended(engine)

    async def main():
        stream = await engine.astream(PATH, json=STREAM, headers=fault("stall-after", "2"))
        assert await stream.__anext__()
        del stream
        gc.collect()
        wait = asyncio.get_running_loop().run_in_executor
        await wait(None, ended, engine)

    asyncio.run(main())
    client = httpx.Client(transport=ParryTransport(engine), base_url="http://parry")
    answer = client.send(client.build_request("POST", PATH, json=STREAM, headers=fault("stall-after", "3")), stream=True)
    assert answer.status_code == 200
    del answer
    gc.collect()
    ended(engine)


def test_a_stream_keeps_its_engine(sim):
    def begin():
        engine = parry.Engine(init_lua=init(sim.url), share_dir=harness.SHARE)
        return engine.stream(PATH, json=STREAM)

    stream = begin()
    gc.collect()
    assert not stream._engine.closed and b"".join(stream).endswith(b"data: [DONE]\n\n")

    def begin_client():
        engine = parry.Engine(init_lua=init(sim.url), share_dir=harness.SHARE)
        client = httpx.Client(transport=ParryTransport(engine), base_url="http://parry")
        return client.send(client.build_request("POST", PATH, json=STREAM), stream=True)

    answer = begin_client()
    gc.collect()
    assert answer.read().endswith(b"data: [DONE]\n\n")
    del stream, answer
    gc.collect()  # httpx's answers are cycles


@pytest.mark.parametrize("wrong", [{"path": "/v1/x\0y"}, {"target": "sim/\0"}, {"method": "PO\0ST"},
                                   {"headers": {"a": "b\0c"}}, {"headers": [("a\0b", "c")]}])
def test_a_text_with_a_nul_is_refused_not_cut(engine, wrong):
    with pytest.raises(parry.ArgumentError, match="NUL"):
        engine.call(**{"path": PATH, "json": QUESTION, **wrong})


def test_secrets_and_events_with_a_nul_are_refused(sim, engine):
    with pytest.raises(parry.ArgumentError, match="NUL"):
        parry.Engine(init_lua=init(sim.url), share_dir=harness.SHARE, secrets={"A": "b\0c"})
    with pytest.raises(parry.ArgumentError, match="NUL"):
        parry.Engine(init_lua=init(sim.url) + "-- \0", share_dir=harness.SHARE)
    with pytest.raises(parry.ArgumentError, match="NUL"):
        engine.decide(status=503, target="sim/x\0y")
    with pytest.raises(parry.ArgumentError, match="NUL"):
        engine.emit("a\0b")


def test_cancelling_at_every_step(engine):
    """Whatever the step at which a task is cancelled, its call ends and nothing is kept."""
    @engine.guard(target="db/x")
    async def load():
        await asyncio.sleep(0.001)
        raise ConnectionResetError("gone")

    async def stream():
        async with engine.astream(PATH, json=STREAM) as answer:
            async for _ in answer:
                pass

    async def main():
        for begin in (load, stream, lambda: engine.acall(PATH, json=QUESTION), lambda: engine.adecide(status=503)):
            for steps in range(25):
                task = asyncio.ensure_future(begin())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except (asyncio.CancelledError, ConnectionResetError):
                    pass

    before = len(_registry)
    asyncio.run(main())
    engine.call(PATH, json=QUESTION)  # from here on a thread delivers
    ended(engine)
    assert len(_registry) == before


def test_closing_is_quick_with_everything_open(make, sim):
    """Streams held back, calls that hang, waits between attempts, guards and functions that are at work."""
    engine = make(init_lua=init(sim.url).replace("cap = 0.1", "cap = 10").replace("base = 0.02", "base = 9"))
    release = threading.Event()

    @engine.function("slow")
    def slow(_):
        release.wait(30)

    @engine.guard(target="db/x")
    def load():
        release.wait(30)
        return "done"

    results = []

    def run(function):
        try:
            results.append(function())
        except parry.CallError as error:
            results.append(error.category)

    work = [load] + [lambda n=n: engine.call(PATH, json=QUESTION, headers=fault("hang", f"h{n}")) for n in range(3)]
    work += [lambda: engine.call(PATH, json=QUESTION, headers=fault("code=503", "w"))]
    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    streams = [engine.stream(PATH, json=STREAM, headers=fault("stall-after", f"s{n}")) for n in range(3)]
    harness.wait_until(lambda: engine.status().open == 8, "all to be open")
    began = time.thread_time(), time.monotonic()
    engine.close()
    took = time.monotonic() - began[1]
    for stream in streams:
        with pytest.raises(parry.CancelledError_):
            list(stream)
    release.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(results) == ["cancelled"] * 4 + ["done"]  # what a guard's function brought is not thrown away
    assert took < 10, took  # that of patience


# ---- exceptions ----------------------------------------------------------------------------------------------------------


class Nasty(Exception):
    """Whatever is asked of it raises."""

    def __str__(self):
        raise RuntimeError("no text")

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


class Mute(Exception):
    __module__ = None
    status_code = property(lambda self: 1 / 0)
    response = property(lambda self: 1 / 0)


@pytest.mark.parametrize("error", [Nasty(), Mute("x"), ConnectionError("\ud800 a surrogate"), ConnectionError("a\0b"),
                                   ConnectionError("x" * 100_000)], ids=["nasty", "mute", "surrogate", "nul", "long"])
def test_exceptions_with_strange_attributes(engine, error):
    """describe() raised what asking raised, and the guarded function's own exception was lost."""
    assert parry.describe(error)["code"] == type(error).__name__
    assert engine.decide(exception=error, target="db/x").category

    @engine.guard(target="db/x")
    def load():
        raise error

    @engine.guard(target="db/x")
    async def aload():
        raise error

    for run in (load, lambda: asyncio.run(aload())):
        with pytest.raises(type(error)) as caught:
            run()
        assert caught.value is error


def test_refused_policies_may_be_sent_to_another_process():
    error = parry.PolicyError(["a.lua:1: wrong", "b.lua:2: wrong"])
    again = pickle.loads(pickle.dumps(error))
    assert again.findings == error.findings and str(again) == str(error)
    for kind in (parry.BusyError("x"), parry.ForkedError("y")):
        assert str(pickle.loads(pickle.dumps(kind))) == str(kind)


def test_an_engine_cannot_be_sent_and_says_why(engine):
    with pytest.raises(TypeError, match="in each process"):
        pickle.dumps(engine)


# ---- functions and guards ------------------------------------------------------------------------------------------------




@pytest.fixture
def asking(make, sim, tmp_path):
    folder = harness.Folder(tmp_path / "policies", init(sim.url, chain='use "asks"'))
    (tmp_path / "policies" / "asks.lua").write_text(ASKS_POLICY)
    return make(policy_dir=folder.path)


ASKS_POLICY = """
return policy {
  name = "asks",
  doc = "Asks the program.",
  on_error = function(self, call, err)
    local answer, failure = host.call("f", { code = err.code })
    return fail { category = "server", status = 418, why = answer ~= nil and "got " .. tostring(answer) or failure.message }
  end,
}
"""


def leave(_):
    raise SystemExit(3)


class BadText(Exception):
    def __str__(self):
        return 5


def bad(_):
    raise BadText


@pytest.mark.parametrize("function", [leave, bad, lambda _: float("nan"), lambda _: "\ud800", lambda _: {1, 2},
                                      lambda _: "x" * 70_000],
                         ids=["exits", "bad text", "nan", "surrogate", "set", "long"])
@pytest.mark.parametrize("kind", ["plain", "async", "any_thread"])
def test_functions_that_go_wrong_answer_at_once(asking, function, kind, unraisable):
    """Some ended the thread that ran them, or were refused by parry unseen: the policy waited in vain, for ten seconds."""
    async def later(arguments):
        return function(arguments)

    asking.register("f", later if kind == "async" else function, any_thread=kind == "any_thread")
    for _ in range(3):
        decision = asking.decide(status=500, target="sim/x", wait=True)
        assert decision.status == 418 and decision.why and "time" not in decision.why, decision


def test_nothing_is_kept_of_functions_that_were_replaced(engine):
    before = len(_registry)
    for _ in range(50):
        engine.register("f", lambda _: 1)
        engine.register("f", None)
    assert len(_registry) <= before + 1


def test_what_cannot_be_guarded_is_refused_where_it_is_written(engine):
    guard = engine.guard(target="db/x")
    for wrong in (classmethod(lambda cls: 1), 5, None):
        with pytest.raises(TypeError):
            guard(wrong)


def test_methods_classmethods_partials_and_callables(engine):
    """An object with an async __call__ counted as good before it had run."""
    class Things:
        @engine.guard(target="db/x")
        def method(self, n):
            return self, n

        @classmethod
        @engine.guard(target="db/x")
        def of_class(cls, n):
            return cls, n

        @staticmethod
        @engine.guard(target="db/x")
        def static(n):
            return n

        def __init__(self):
            self.tries = 0

        async def __call__(self):
            self.tries += 1
            if self.tries < 2:
                raise ConnectionResetError("gone")
            return self.tries

    things = Things()
    assert things.method(1) == (things, 1) and Things.of_class(2) == (Things, 2) and things.static(3) == 3
    assert engine.guard(target="db/x")(functools.partial(pow, 2))(5) == 32
    assert asyncio.run(engine.guard(target="db/x")(things)()) == 2


def test_guards_within_guards(engine):
    @engine.guard(target="db/x")
    def fact(n):
        number = parry.attempt().number
        result = 1 if n < 2 else n * fact(n - 1)
        assert parry.attempt().number == number
        return result

    @engine.guard(target="db/x")
    async def afact(n):
        result = 1 if n < 2 else n * await afact(n - 1)
        assert parry.attempt().number == 1
        return result

    assert fact(10) == 3628800 and asyncio.run(afact(10)) == 3628800


# ---- forks ---------------------------------------------------------------------------------------------------------------


def test_a_forked_child_does_not_wait_for_what_the_parent_reads(engine):
    """It waited for callbacks that only the parent's threads make."""
    program = """
import os, sys, parry
engine = parry.Engine(init_lua=%r, share_dir=%r)
stream = engine.stream(%r, json=%r, headers={"x-sim-fault": "stall-after"})
next(stream)
child = os.fork()
if child == 0:
    try:
        while True:
            next(stream)
    except parry.ForkedError:
        stream.close()
        repr(engine)
        del stream, engine
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    init_lua = init(os.environ["SIM_URL"])
    done = subprocess.run([sys.executable, "-c", program % (init_lua, str(harness.SHARE), PATH, STREAM)], timeout=30,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": PACKAGE})
    assert done.stdout == "7\n" and not done.stderr, done.stderr


@pytest.fixture(autouse=True)
def sim_url(sim, monkeypatch):
    monkeypatch.setenv("SIM_URL", sim.url)


# ---- httpx ---------------------------------------------------------------------------------------------------------------


def test_what_httpx_does_around_a_transport(plain):
    """Redirects, HTTP/2's flag, hooks, cookies, gzip, uploads from generators, other methods."""
    engine, seen = plain(), []

    def hook(thing):
        seen.append(type(thing).__name__)

    with httpx.Client(transport=ParryTransport(engine), base_url="http://parry", http2=H2,
                      event_hooks={"request": [hook], "response": [hook]}) as client:
        assert client.get("/gzip").json() == {"said": "hello"}
        assert seen == ["Request", "Response"]
        assert client.get("/moved").status_code == 302
        moved = client.get("/moved", follow_redirects=True)
        assert moved.status_code == 200 and moved.content == b"there" and len(moved.history) == 1
        client.get("/cookies")
        assert not client.cookies  # those of the provider are parry's affair, as at the gateway
        binary = bytes(range(256)) * 1000
        assert client.put("/x", content=(binary[at:at + 1000] for at in range(0, len(binary), 1000))).content == binary
        assert b"file.bin" in client.post("/x", files={"f": ("file.bin", binary)}).content
        head = client.head("/x")
        assert head.status_code == 200 and head.content == b""
        with client.stream("GET", "/endless") as answer:
            assert next(answer.iter_raw())
    ended(engine)

    async def upload():
        yield b"a" * 100_000
        yield b"b"

    async def main():
        async with httpx.AsyncClient(transport=AsyncParryTransport(engine), base_url="http://parry") as client:
            assert len((await client.post("/x", content=upload())).content) == 100_001
            async with client.stream("GET", "/endless") as answer:
                async for _ in answer.aiter_raw():
                    break
                await answer.aclose()

    asyncio.run(main())
    ended(engine)


def test_a_closed_engine_is_an_error_of_httpx(engine):
    """SDKs catch httpx's; parry's went through them."""
    client = httpx.Client(transport=ParryTransport(engine), base_url="http://parry")
    engine.close()
    with pytest.raises(httpx.TransportError, match="closed"):
        client.post(PATH, json=QUESTION)

    async def main():
        async with httpx.AsyncClient(transport=AsyncParryTransport(engine), base_url="http://parry") as client:
            with pytest.raises(httpx.TransportError, match="closed"):
                await client.post(PATH, json=QUESTION)

    asyncio.run(main())
