"""Azure and Gemini over real sockets: `parry sim` in their shapes behind `parry serve` with the shipped policies.

Shows that a failure that passes is recovered, in plain answers and streams; that a quota of the day and a blocked prompt
are not tried again; that Google's RetryInfo is waited for; and that what the client gets is its own dialect's."""

import json

import pytest

from harness import chain

SECRETS = {"SIM_KEY": "sk-families-0123456789"}
GEMINI, AZURE = "/v1beta/models/gemini-2.5-pro", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"


@pytest.fixture(scope="module")
def gateway(start_once):
    sim = start_once.sim()
    policies = chain()
    return start_once.gateway(f"""
provider "azure" {{ base_url = "{sim.url}/openai", dialect = "azure", auth = header("api-key", secret "SIM_KEY") }}
provider "google" {{ base_url = "{sim.url}/v1beta", dialect = "gemini", auth = header("x-goog-api-key", secret "SIM_KEY") }}
route "/openai/*" {{ to = "azure", deadline = 20, chain = {policies} }}
route "/v1beta/*" {{ to = "google", deadline = 20, client_dialect = "gemini", chain = {policies} }}
""", env=SECRETS)


keys = iter(range(1, 100000))


def ask_azure(gateway, fault, stream=False):
    body = {"messages": [{"role": "user", "content": "grüß dich"}], "stream": stream}
    return gateway.post(AZURE, body, {"x-sim-fault": fault, "x-sim-key": f"k{next(keys)}"})


def ask_gemini(gateway, fault, stream=False):
    path = GEMINI + (":streamGenerateContent?alt=sse" if stream else ":generateContent")
    body = {"contents": [{"role": "user", "parts": [{"text": "grüß dich"}]}]}
    return gateway.post(path, body, {"x-sim-fault": fault, "x-sim-key": f"k{next(keys)}"})


def events(reply):
    return [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]


def said_by_gemini(answers):
    return "".join(part.get("text", "") for answer in answers for candidate in answer.get("candidates", [])
                   for part in candidate["content"]["parts"])


@pytest.mark.parametrize("fault", ["503", "429;retry-after=0", "reset", "cut", "error-200", "500"])
def test_azure_recovers(gateway, fault):
    reply = ask_azure(gateway, f"code={fault};times=1")
    assert reply.status == 200 and reply.attempts == 2, reply
    assert reply.json()["choices"][0]["message"]["content"] == "grüß dich"
    reply = ask_azure(gateway, f"code={fault};times=1", stream=True)
    assert reply.status == 200 and reply.whole and reply.attempts == 2, reply
    chunks = events(reply)
    assert "".join(c["delta"].get("content", "") for e in chunks for c in e["choices"]) == "grüß dich"
    assert sum("prompt_filter_results" in chunk for chunk in chunks) == 1


@pytest.mark.parametrize("fault", ["503", "429;retry-after=0", "reset", "cut", "error-200", "500"])
def test_gemini_recovers(gateway, fault):
    reply = ask_gemini(gateway, f"code={fault};times=1")
    assert reply.status == 200 and reply.attempts == 2, reply
    assert said_by_gemini([reply.json()]) == "grüß dich"
    reply = ask_gemini(gateway, f"code={fault};times=1", stream=True)
    assert reply.status == 200 and reply.whole and reply.attempts == 2, reply
    assert said_by_gemini(events(reply)) == "grüß dich"


def test_googles_retry_info_is_waited_for(gateway):
    reply = ask_gemini(gateway, "code=429;retry-after=0.7;times=1")
    assert reply.status == 200 and reply.attempts == 2 and reply.seconds >= 0.7, reply


@pytest.mark.parametrize("ask, fault, status", [
    (ask_azure, "content", 400), (ask_azure, "quota", 429), (ask_azure, "404", 404), (ask_azure, "frozen", 403),
    (ask_gemini, "content", 400), (ask_gemini, "quota", 429), (ask_gemini, "401", 401), (ask_gemini, "balance", 402)])
def test_what_does_not_pass_is_sent_once(gateway, ask, fault, status):
    reply = ask(gateway, f"code={fault}")
    assert (reply.status, reply.attempts) == (status, 1), reply


def test_errors_are_told_in_the_clients_dialect(gateway):
    error = ask_gemini(gateway, "code=content").json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT"), error
    error = ask_gemini(gateway, "code=error-after", stream=True)
    assert events(error)[-1]["error"]["status"] == "INTERNAL", error
    error = ask_gemini(gateway, "code=reset").json()["error"]
    assert (error["code"], error["status"]) == (502, "UNAVAILABLE"), error
    error = ask_azure(gateway, "code=reset").json()["error"]
    assert error["type"] == "server_error" and error["param"] is None, error
