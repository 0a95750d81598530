"""Calls, whole and streamed, from threads and from asyncio: recovered ones, failed ones, and those that are left."""

import asyncio
import pickle
import threading

import pytest

import harness
import parry
from conftest import QUESTION, fault

PATH = "/v1/chat/completions"
STREAM = {**QUESTION, "stream": True}


@pytest.fixture(params=[1, 0, 3], ids=["one thread", "no thread", "three threads"])
def any_engine(make, request):
    return make(threads=request.param)


def test_an_answer(any_engine):
    answer = any_engine.call(PATH, json=QUESTION)
    assert answer.status == 200 and answer.ok and answer.attempts == 1 and answer.target.startswith("sim")
    assert answer.json()["choices"][0]["message"]["content"] and answer.header("Content-Type") == "application/json"
    assert answer.call_id.startswith("c_")


@pytest.mark.parametrize("spec", ["code=429;retry-after-ms=20;times=1", "code=503;times=2", "reset;times=1"])
def test_what_passes_is_recovered(any_engine, spec):
    answer = any_engine.call(PATH, json=QUESTION, headers=fault(spec))
    assert answer.ok and answer.attempts == (3 if "times=2" in spec else 2)


def test_a_stream(any_engine):
    with any_engine.stream(PATH, json=STREAM, headers=fault("cut;times=1")) as answer:
        text = b"".join(answer)
        assert answer.status == 200 and answer.outcome.ok and answer.outcome.attempts == 2
    assert text.startswith(b"data: ") and text.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("spec, kind, status", [
    ("code=400", parry.InvalidRequestError, 400), ("code=401", parry.AuthError, 401),
    ("code=429;retry-after=100", parry.RateLimitError, 429), ("code=503", parry.OverloadedError, 503),
    ("code=500", parry.ServerError, 500), ("reset", parry.NetworkError, 502), ("context", parry.ContextLengthError, 400)])
def test_what_fails_raises_the_error_of_its_category(engine, spec, kind, status):
    with pytest.raises(kind) as caught:
        engine.call(PATH, json=QUESTION, headers=fault(spec))
    error = caught.value
    assert isinstance(error, parry.CallError) and error.category == kind.category and error.status == status
    assert error.attempts >= 1 and error.call_id and error.target.startswith("sim")
    assert error.category in str(error) and error.call_id in error.explanation
    assert (error.retry_after or 0) > 60 if "100" in spec else True
    assert error.json()["error"]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


def test_pythons_own_names_catch_what_they_mean(engine):
    with pytest.raises(ConnectionError):
        engine.call(PATH, json=QUESTION, headers=fault("reset"))
    assert issubclass(parry.TimeoutError_, TimeoutError) and issubclass(parry.PermissionError_, PermissionError)


def test_a_failure_as_an_answer(engine):
    answer = engine.call(PATH, json=QUESTION, headers=fault("code=400"), raise_for_outcome=False)
    assert answer.status == 400 and not answer.ok and answer.json()["error"]
    with pytest.raises(parry.InvalidRequestError):
        answer.raise_for_outcome()
    with engine.stream(PATH, json=STREAM, headers=fault("code=400"), raise_for_outcome=False) as stream:
        assert stream.status == 400
        with pytest.raises(parry.InvalidRequestError):
            list(stream)
    with pytest.raises(parry.InvalidRequestError) as caught:
        engine.stream(PATH, json=STREAM, headers=fault("code=400"))
    assert caught.value.json()["error"]


def test_a_stream_that_breaks_after_content_raises_at_its_end(engine):
    got = []
    with pytest.raises(parry.CallError) as caught:
        with engine.stream(PATH, json=STREAM, headers=fault("cut-after")) as stream:
            got.extend(stream)
    assert b"".join(got).startswith(b"data: ") and caught.value.category in ("network", "server")


def test_no_route_is_an_error_of_the_call(engine):
    with pytest.raises(parry.NotFoundError):
        engine.call("/nowhere", json=QUESTION)


@pytest.mark.parametrize("wrong", [{"path": "v1"}, {"path": ""}, {"path": "/v1/x", "json": 1, "body": b""}])
def test_arguments_that_are_wrong(engine, wrong):
    with pytest.raises(parry.ArgumentError):
        engine.call(**wrong)


def test_bodies_are_bytes_or_text_and_no_more_than_sixteen_mebibytes(engine):
    text = '{"model":"sim-ok","messages":[{"role":"user","content":"hello"}]}'
    for body in (text, text.encode()):
        assert engine.call(PATH, body=body, headers=[("Content-Type", "application/json")]).ok
    with pytest.raises(ValueError):
        engine.call(PATH, body=b"x" * (16 * 1024 * 1024 + 1))


def test_an_answer_larger_than_is_held_in_memory(make):
    with pytest.raises(parry.PayloadTooLargeError, match="max_answer"):
        make(max_answer=10).call(PATH, json=QUESTION)


def test_threads_call_at_the_same_time(any_engine):
    problems = []

    def work(number):
        try:
            for turn in range(10):
                spec = fault("code=503;times=1", f"{number}-{turn}") if number < 2 else None  # within the retry budget
                assert any_engine.call(PATH, json=QUESTION, headers=spec).ok
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems and not any(thread.is_alive() for thread in threads)


# ---- asyncio ---------------------------------------------------------------------------------------------------------


def test_asyncio(any_engine, sim):
    async def main():
        specs = [fault("code=503;times=1", str(n)) if n < 3 else None for n in range(20)]  # within the retry budget
        answers = await asyncio.gather(*(any_engine.acall(PATH, json=QUESTION, headers=spec) for spec in specs))
        assert [a.attempts for a in answers] == [2] * 3 + [1] * 17
        async with any_engine.astream(PATH, json=STREAM) as stream:
            chunks = [chunk async for chunk in stream]
        assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
        with pytest.raises(parry.InvalidRequestError):
            await any_engine.acall(PATH, json=QUESTION, headers=fault("code=400"))
        with pytest.raises(parry.InvalidRequestError):
            async with any_engine.astream(PATH, json=STREAM, headers=fault("code=400")):
                pass

    asyncio.run(main())
    sim.reset()
    asyncio.run(main())  # in the next loop, too


def test_asyncio_alone_needs_no_thread_of_this_package(make):
    engine = make()

    async def main():
        assert (await engine.acall(PATH, json=QUESTION)).ok
        assert not [t for t in threading.enumerate() if t.name.startswith("parry")]
        # A blocking call in a coroutine is bad manners, and works.
        assert engine.call(PATH, json=QUESTION).ok
        assert (await engine.acall(PATH, json=QUESTION)).ok
        await engine.aclose()

    asyncio.run(main())


def test_loops_on_threads_and_plain_threads_share_an_engine(engine):
    problems = []

    def guarded(function):
        def run():
            try:
                function()
            except BaseException as problem:
                problems.append(problem)
        return threading.Thread(target=run)

    async def many():
        for _ in range(5):
            answers = await asyncio.gather(*(engine.acall(PATH, json=QUESTION) for _ in range(5)))
            assert all(answer.ok for answer in answers)

    def plain():
        for _ in range(10):
            assert engine.call(PATH, json=QUESTION).ok

    threads = [guarded(lambda: asyncio.run(many())) for _ in range(3)] + [guarded(plain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems and not any(thread.is_alive() for thread in threads)


# ---- leaving ---------------------------------------------------------------------------------------------------------


def open_calls(engine):
    return engine.status().open


def test_cancelling_a_task_ends_its_call(any_engine, sim):
    async def main():
        task = asyncio.create_task(any_engine.acall(PATH, json=QUESTION, headers=fault("hang")))
        await asyncio.get_running_loop().run_in_executor(
            None, harness.wait_until, lambda: sim.stats()["total"], "the provider to be asked")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.get_running_loop().run_in_executor(
            None, harness.wait_until, lambda: open_calls(any_engine) == 0, "the call to end")

    asyncio.run(main())


def test_a_stream_that_is_left_early_ends(any_engine):
    with any_engine.stream(PATH, json=STREAM, headers=fault("stall-after")) as stream:
        assert next(stream)
    harness.wait_until(lambda: open_calls(any_engine) == 0, "the call to end")


def test_a_slow_reader_holds_the_provider_back(make, start_provider):
    """40 MB, of which the engine and this package keep little while nobody reads."""
    chunk, count = b"x" * 65536, 640
    provider = start_provider(chunk, count)
    engine = make(init_lua=f"""
provider "big" {{ base_url = "http://{provider.address}", dialect = "generic" }}
route "/v1/*" {{ to = "big", deadline = 20, chain = {{ use "retry" }} }}
""")
    with engine.stream("/v1/big", method="GET") as stream:
        harness.wait_until(lambda: provider.stalled(), "the provider to be held back")
        assert provider.sent < len(chunk) * count / 2
        size = sum(len(data) for data in stream)
    assert size == len(chunk) * count and stream.outcome.ok


@pytest.fixture
def start_provider():
    """A provider with a large answer that counts what it could send."""
    import socket
    import time

    class Provider(threading.Thread):
        def __init__(self, chunk, count):
            super().__init__(daemon=True)
            self.chunk, self.count, self.sent, self.last = chunk, count, 0, time.monotonic()
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
            self.start()

        def stalled(self):
            return self.sent and time.monotonic() - self.last > 0.3

        def run(self):
            connection, _ = self.listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n"
                               % (len(self.chunk) * self.count))
            for _ in range(self.count):
                connection.sendall(self.chunk)
                self.sent += len(self.chunk)
                self.last = time.monotonic()
            connection.close()

    started = []

    def start(chunk, count):
        started.append(Provider(chunk, count))
        return started[-1]

    yield start
    for provider in started:
        provider.listener.close()
        provider.join(10)
        assert not provider.is_alive()
