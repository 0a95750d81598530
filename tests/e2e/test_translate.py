"""Calls across dialects, with real sockets: an OpenAI program whose provider is down is answered by Anthropic's API, and
the reverse. Plain and streaming, by hand and by the official SDKs: text, unicode, tools there and back, what the target
refuses, what cannot be translated, a cut after content, and programs that leave."""

import json

import pytest

from harness import refused_port, wait_until
from test_sdk import KEY, TEXT, TOOL, Driver, text_of

INIT = """
provider "down" { base_url = "http://127.0.0.1:%(dead)d/v1", dialect = "openai" }
provider "gone" { base_url = "http://127.0.0.1:%(dead)d/v1/messages", dialect = "anthropic" }
provider "gpt" { base_url = "%(url)s/v1", dialect = "openai", auth = bearer(secret "KEY") }
provider "claude" { base_url = "%(url)s/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }
route "/v1/*" { to = "down", deadline = 30, timeouts = { idle = 1 }, chain = {
  use "fallback_model" { models = { ["*"] = { "claude/claude-x" } } } } }
route "/v1/messages*" { to = "gone", deadline = 30, timeouts = { idle = 1 }, chain = {
  use "fallback_model" { models = { ["*"] = { "gpt/gpt-x" } } } } }
"""

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
OTHER = {"openai": "anthropic", "anthropic": "openai"}
TARGET = {"openai": "claude/claude-x", "anthropic": "gpt/gpt-x"}
API = {"openai": "chat", "anthropic": "messages"}
each_sdk = pytest.mark.parametrize("sdk", OTHER)
each_way = pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])


@pytest.fixture(scope="module")
def driver():
    made = Driver()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim()


@pytest.fixture(scope="module")
def gateway(start_once, sim):
    dead, held = refused_port()
    with held:
        yield start_once.gateway(INIT % {"dead": dead, "url": sim.url}, env={"KEY": KEY})


def case(gateway, sdk, streaming=False, text=TEXT, api=None, fault=None, **body):
    request = {"model": "gpt-1" if sdk == "openai" else "claude-1", "messages": [{"role": "user", "content": text}],
               **({"max_tokens": 1000} if sdk == "anthropic" else {}), **({"stream": True} if streaming else {}), **body}
    return {"sdk": sdk, "api": api or API[sdk], "body": request,
            "baseURL": gateway.url + ("" if sdk == "anthropic" else "/v1"),
            "headers": {"x-sim-fault": fault} if fault else {}}


def tool_of(sdk):
    return ({"type": "function", "function": {"name": "look_up", "parameters": TOOL}} if sdk == "openai"
            else {"name": "look_up", "input_schema": TOOL})


# --- By hand: what goes on the wire ---------------------------------------------------------------------------


@each_way
def test_openai_answered_by_anthropic(gateway, sim, streaming):
    body = {"model": "gpt-1", "stream": streaming, "n": 1, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "hello"}]}
    reply = gateway.post(CHAT, body)
    assert (reply.status, reply.target, reply.headers["parry-translated"]) == (200, "claude/claude-x", "anthropic")
    asked = json.loads(sim.last_body())
    assert asked["model"] == "claude-x" and asked["max_tokens"] == 4096 and asked["stream"] == streaming
    sent = sim.last_headers()
    headers = {name.lower(): value for name, value in sent["headers"]}
    assert sent["target"] == MESSAGES and headers["anthropic-version"] == "2023-06-01"
    assert headers["x-api-key"].startswith("sha8:") and "authorization" not in headers
    if not streaming:
        said = reply.json()
        assert said["object"] == "chat.completion" and said["choices"][0]["finish_reason"] == "stop"
        assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] + said["usage"]["completion_tokens"] > 0
        return
    events = reply.events()
    assert events[-1] == "[DONE]" and events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] > 0
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["object"] == "chat.completion.chunk" for event in events[:-1])


@each_way
def test_anthropic_answered_by_openai(gateway, sim, streaming):
    body = {"model": "claude-1", "max_tokens": 9, "stream": streaming, "system": "s",
            "messages": [{"role": "user", "content": "hello"}]}
    reply = gateway.post(MESSAGES, body)
    assert (reply.status, reply.target, reply.headers["parry-translated"]) == (200, "gpt/gpt-x", "openai")
    asked = json.loads(sim.last_body())
    assert sim.last_headers()["target"] == CHAT
    assert asked["max_tokens"] == 9 and asked["messages"][0] == {"role": "system", "content": "s"}
    if not streaming:
        said = reply.json()
        assert said["content"] == [{"type": "text", "text": "hello"}] and said["stop_reason"] == "end_turn"
        return
    names = [name for name, _ in reply.named_events()]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert reply.events()[-2]["usage"]["output_tokens"] > 0


# --- By the SDKs -----------------------------------------------------------------------------------------------------


@each_way
@each_sdk
def test_text(driver, gateway, sdk, streaming):
    result = driver.run(**case(gateway, sdk, streaming))
    assert text_of(API[sdk], result) == TEXT
    assert result["headers"]["parry-target"] == TARGET[sdk]


@each_way
@each_sdk
def test_a_prompt_of_a_megabyte(driver, gateway, sdk, streaming):
    text = "0123456789abcdé你" * 70000
    assert text_of(API[sdk], driver.run(**case(gateway, sdk, streaming, text))) == text


def called(sdk, data):
    """Name, arguments and id of the one tool call."""
    if sdk == "openai":
        assert data["choices"][0]["finish_reason"] == "tool_calls"
        call = data["choices"][0]["message"]["tool_calls"][0]
        return call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"]
    assert data["stop_reason"] == "tool_use"
    call = next(part for part in data["content"] if part["type"] == "tool_use")
    return call["name"], call["input"], call["id"]


@each_way
@each_sdk
def test_tools_there_and_back(driver, gateway, sim, sdk, streaming):
    api = "helper" if streaming else None
    result = driver.run(**case(gateway, sdk, streaming, api=api, tools=[tool_of(sdk)]))
    assert "error" not in result, result["error"]
    name, arguments, call_id = called(sdk, result["data"])
    assert (name, arguments) == ("look_up", {"text": TEXT})
    if sdk == "openai":
        more = [result["data"]["choices"][0]["message"],
                {"role": "tool", "tool_call_id": call_id, "content": "found"}]
        more[0] = {"role": "assistant", "content": None, "tool_calls": more[0]["tool_calls"]}
    else:
        more = [{"role": "assistant", "content": result["data"]["content"]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "found"}]}]
    messages = [{"role": "user", "content": TEXT}, *more]
    result = driver.run(**case(gateway, sdk, streaming, tools=[tool_of(sdk)], messages=messages))
    assert text_of(API[sdk], result)
    asked = json.loads(sim.last_body())["messages"]
    if sdk == "openai":
        assert asked[1]["content"][0] == {"type": "tool_use", "id": call_id, "name": "look_up", "input": {"text": TEXT}}
        assert asked[2]["content"][0]["tool_use_id"] == call_id
    else:
        assert json.loads(asked[1]["tool_calls"][0]["function"]["arguments"]) == {"text": TEXT}
        assert asked[2] == {"role": "tool", "tool_call_id": call_id, "content": "found"}


@pytest.mark.parametrize("fault,name", [("400", "BadRequestError"), ("429;retry-after=100", "RateLimitError"),
                                        ("503", "ServerError")])
@each_way
@each_sdk
def test_what_the_target_refuses_is_the_sdk_s_own_error(driver, gateway, sdk, streaming, fault, name):
    error = driver.run(**case(gateway, sdk, streaming, fault=fault))["error"]
    said = {"InternalServerError": "ServerError", "ServiceUnavailableError": "ServerError"}  # each SDK has one of these
    assert error["isAPIError"] and said.get(error["name"], error["name"]) == name and error["message"], error
    assert error["headers"]["parry-target"] == TARGET[sdk]


@pytest.mark.parametrize("fault", ["cut-after", "error-after"])
@each_sdk
def test_a_failure_after_content_is_the_sdk_s_typed_error(driver, gateway, sdk, fault):
    result = driver.run(**case(gateway, sdk, True, fault=fault, text=TEXT * 10))
    assert result["chunks"], "the program has had content"
    assert result["error"]["isAPIError"] and not result["error"]["isConnection"], result


@each_sdk
def test_what_cannot_be_translated_is_told_by_name(driver, gateway, sim, sdk):
    before = sim.stats()["total"]
    more = {"n": 3} if sdk == "openai" else {"container": "c"}
    error = driver.run(**case(gateway, sdk, **more))["error"]
    assert error["isAPIError"] and ("n above 1" if sdk == "openai" else "container") in error["message"], error
    assert sim.stats()["total"] == before


@each_sdk
def test_an_abort_ends_a_translated_stream(driver, gateway, sim, sdk):
    before = sim.stats()["cancelled"]
    test = case(gateway, sdk, True, fault="stall-after", text=TEXT * 10)
    test["abort"] = "content"
    driver.run(**test)
    wait_until(lambda: sim.stats()["cancelled"] == before + 1, "the provider is told", 0.5)
    wait_until(lambda: gateway.status()["calls_open"] == 0, "the call is over", 0.5)
