"""httpx, and whatever is built on it, with no gateway running: what fails once is recovered, what fails for good is told as
an SDK expects it."""

import asyncio
import json

import httpx
import pytest

import harness
import parry
from conftest import QUESTION, fault
from parry.httpx import AsyncParryTransport, ParryTransport

PATH = "/v1/chat/completions"
STREAM = {**QUESTION, "stream": True}
RENEWS = """
provider "renewed" {{ base_url = "{url}/auth/v1", dialect = "openai", auth = bearer(credential "c") }}
credential "c" {{ refresh_token = secret "REFRESH", access_token = secret "OLD", token_url = "{url}/token", grant = "oauth" }}
route "/renewed/v1/*" {{ to = "renewed", deadline = 20, chain = {{ use "token_refresh", use "retry" }} }}
"""

RECOVERED = ["code=429;retry-after-ms=20;times=1", "code=503;times=1", "code=503;times=2", "reset;times=1",
             "cut;times=1", "error-200;times=1", "html-502;times=1", "hang;times=1", "garbage;times=1"]


@pytest.fixture
def engine(make, sim, tmp_path):
    """With a short first_byte, so that a provider that says nothing is left soon."""
    folder = harness.Folder(tmp_path / "policies", f"""
provider "sim" {{ base_url = "{sim.url}/v1", dialect = "openai", timeouts = {{ first_byte = 0.5 }} }}
{RENEWS.format(url=sim.url)}
route "/v1/*" {{ to = "sim", deadline = 20, chain = {{
  use "circuit_breaker" {{ failures = 50 }}, use "retry" {{ max_attempts = 4, base = 0.02, cap = 0.1 }} }} }}
""")
    return make(policy_dir=folder.path, secrets={"REFRESH": "first-refresh-token", "OLD": "old-access-token"})


@pytest.fixture
def client(engine):
    with httpx.Client(transport=ParryTransport(engine), base_url="http://parry") as client:
        yield client


def text_of(lines):
    """The words of a streamed answer."""
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e.get("choices"))


@pytest.mark.parametrize("spec", RECOVERED)
def test_what_passes_is_recovered(client, spec):
    answer = client.post(PATH, json=QUESTION, headers=fault(spec))
    answer.raise_for_status()
    assert answer.json()["choices"][0]["message"]["content"] and int(answer.headers["parry-attempts"]) > 1


@pytest.mark.parametrize("spec", RECOVERED)
def test_streams_are_recovered(client, spec):
    with client.stream("POST", PATH, json=STREAM, headers=fault(spec)) as answer:
        assert answer.status_code == 200 and int(answer.headers["parry-attempts"]) > 1
        lines = list(answer.iter_lines())
    assert text_of(lines) and "data: [DONE]" in "\n".join(lines)


def test_an_expired_token_is_renewed(client, sim):
    answer = client.post("/renewed" + PATH, json=QUESTION)
    assert answer.status_code == 200 and sim.stats()["renewals"] == 1
    sim.control("POST", "/sim/expire")
    with client.stream("POST", "/renewed" + PATH, json=STREAM) as answer:
        assert text_of(list(answer.iter_lines()))
    assert sim.stats()["renewals"] == 2


def test_asyncio(engine, sim):
    async def main():
        async with httpx.AsyncClient(transport=AsyncParryTransport(engine), base_url="http://parry") as client:
            for number, spec in enumerate(RECOVERED):
                key = {"x-sim-key": f"a{number}"}
                answer = await client.post(PATH, json=QUESTION, headers={**fault(spec), **key})
                assert answer.status_code == 200 and int(answer.headers["parry-attempts"]) > 1
                key = {"x-sim-key": f"b{number}"}
                async with client.stream("POST", PATH, json=STREAM, headers={**fault(spec), **key}) as answer:
                    assert text_of([line async for line in answer.aiter_lines()])
            assert (await client.post("/renewed" + PATH, json=QUESTION)).status_code == 200
            answers = await asyncio.gather(*(client.post(PATH, json=QUESTION) for _ in range(20)))
            assert all(answer.status_code == 200 for answer in answers)

    asyncio.run(main())


@pytest.mark.parametrize("spec, status", [("code=400", 400), ("code=429;retry-after=100", 429), ("code=503", 503),
                                          ("reset", 502), ("hang", 504)])
def test_what_fails_for_good_is_an_answer_that_sdks_do_not_repeat(client, spec, status):
    answer = client.post(PATH, json=QUESTION, headers=fault(spec))
    assert answer.status_code == status and answer.json()["error"]
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("retry-after") or "retry-after" not in spec


def test_or_an_exception_where_it_is_asked_for(engine):
    with httpx.Client(transport=ParryTransport(engine, transport_errors=True), base_url="http://parry") as client:
        with pytest.raises(httpx.ConnectError) as caught:
            client.post(PATH, json=QUESTION, headers=fault("reset"))
        assert isinstance(caught.value.__cause__, parry.NetworkError) and caught.value.__cause__.attempts == 4
        with pytest.raises(httpx.ReadTimeout):
            client.post(PATH, json=QUESTION, headers=fault("hang", "h"))
        assert client.post(PATH, json=QUESTION, headers=fault("code=503")).status_code == 503


def test_a_stream_that_breaks_after_content_ends_with_an_error(client):
    with client.stream("POST", PATH, json=STREAM, headers=fault("cut-after")) as answer:
        lines = []
        with pytest.raises(httpx.RemoteProtocolError, match="broke off"):
            for line in answer.iter_lines():
                lines.append(line)
    assert text_of(lines) and any('"error"' in line for line in lines) and "data: [DONE]" not in lines


def test_leaving_a_stream_ends_the_call(client, engine):
    with client.stream("POST", PATH, json=STREAM, headers=fault("stall-after")) as answer:
        assert next(answer.iter_raw())
    harness.wait_until(lambda: engine.status().open == 0, "the call to end")


def test_cancelling_ends_the_call(engine, sim):
    async def main():
        async with httpx.AsyncClient(transport=AsyncParryTransport(engine), base_url="http://parry") as client:
            task = asyncio.create_task(client.post(PATH, json=QUESTION, headers=fault("delay=60")))
            wait = asyncio.get_running_loop().run_in_executor
            await wait(None, harness.wait_until, lambda: sim.stats()["total"], "the provider to be asked")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await wait(None, harness.wait_until, lambda: engine.status().open == 0, "the call to end")

    asyncio.run(main())


def test_queries_and_methods_and_headers_arrive(client, sim):
    answer = client.get("/v1/models?limit=2")
    assert answer.status_code == 200 and answer.json()["data"]
    client.post(PATH, json=QUESTION, headers={"X-Team": "red"})
    headers = {name.lower(): value for name, value in sim.last_headers()["headers"]}
    assert headers["x-team"] == "red" and "parry" != headers["host"]


def test_a_body_that_is_too_large_and_an_engine_that_is_closed(client, engine):
    with pytest.raises(httpx.RequestError, match="argument"):
        client.post(PATH, content=b"x" * (16 * 1024 * 1024 + 1))
    engine.close()
    with pytest.raises((httpx.RequestError, parry.ClosedError), match="closed"):
        client.post(PATH, json=QUESTION)


def test_large_answers_come_whole(client):
    question = {**QUESTION, "messages": [{"role": "user", "content": "word " * 50_000}]}
    answer = client.post(PATH, json=question)
    assert answer.status_code == 200 and len(answer.content) > 200_000
    with client.stream("POST", PATH, json={**question, "stream": True}) as answer:
        assert len(text_of(list(answer.iter_lines()))) > 200_000


def test_what_stands_in_for_an_sdk_is_met(client):
    """The rule by which the openai and anthropic packages repeat: x-should-retry before anything else."""
    tries = []
    for _ in range(3):
        answer = client.post(PATH, json=QUESTION, headers=fault("code=503"))
        tries.append(answer.status_code)
        if answer.headers.get("x-should-retry") == "false":
            break
    assert tries == [503]
