"""The official SDKs through a chain with every shipped policy in it, streaming and not.

Policies are tested one by one; whether they get along is another question: limits that hold places while retries wait,
a breaker before a probe, an answer given by one and shaped by another.
"""

import pathlib

import pytest

from harness import SHARE
from test_sdk import (KEY, TEXT, assert_sent_as_it_was, case, driver, each_api, each_way, sim,  # noqa: F401
                      text_of)

POLICIES = {
    "client_limits": '{ limits = { ["*"] = { calls_per_minute = 100000, concurrent = 100, tokens_per_day = 1e9 } } }',
    "validate": '{ max_tokens = 32000 }',
    "file_check": '{}',
    "session_queue": '{ header = "x-conversation" }',
    "concurrency": '{ slots = 32 }',
    "rate_limit": '{ limit = 10000, per = 60, rate = 100000, burst = 1000000, cost = "tokens" }',
    "circuit_breaker": '{ failures = 50 }',
    "health": '{ interval = 3600 }',
    "chaos": '{ experiments = { busy = { category = "overloaded", models = { "unlucky" } } } }',
    "token_refresh": '{}',
    "keys": '{}',
    "retry": '{ max_attempts = 3, base = 0.01, cap = 0.05 }',
    "fallback_model": '{ models = { ["worn"] = { "p/fresh" }, ["claude-worn"] = { "claude/fresh" } } }',
    "alert": '{}',
    "standard_errors": '{ style = "client" }',
}
CHAIN = "{ " + ", ".join(f'use "{name}" {params}' for name, params in POLICIES.items()) + " }"


def test_the_chain_is_complete():
    shipped = {path.stem for path in pathlib.Path(SHARE).glob("*.lua")}
    assert set(POLICIES) == {name for name in shipped if name != "init" and not name.endswith("_test")}


@pytest.fixture(scope="module")
def gateway(start_once, sim):  # noqa: F811
    options = f"deadline = 30, timeouts = {{ first_byte = 5, idle = 5 }}, chain = {CHAIN}"
    return start_once.gateway(f"""
provider "p" {{ base_url = "{sim.url}/v1", dialect = "openai", auth = bearer(secret "KEY"), keys = {{ secret "KEY2" }} }}
provider "claude" {{ base_url = "{sim.url}/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }}
route "/v1/*" {{ to = "p", {options} }}
route "/v1/messages*" {{ to = "claude", {options} }}
""", env={"KEY": KEY, "KEY2": KEY + "-second"})


@each_way
@each_api
def test_what_is_good_passes_as_it_is(driver, gateway, sim, api, streaming):  # noqa: F811
    asked = case(gateway, api, streaming)
    asked["headers"]["x-conversation"] = "one"
    result = driver.run(**asked)
    assert text_of(api, result) == TEXT
    assert_sent_as_it_was(result, sim.last_body())
    assert result["headers"]["parry-attempts"] == "1"


@each_way
@each_api
@pytest.mark.parametrize("fault", ["code=503;times=1", "code=429;times=1;retry-after=0", "code=reset;times=1",
                                   "code=cut;times=1"])
def test_what_passes_is_recovered_unseen(driver, gateway, api, streaming, fault):  # noqa: F811
    asked = case(gateway, api, streaming, fault=fault)
    asked["headers"]["x-conversation"] = "two"
    result = driver.run(**asked)
    assert text_of(api, result) == TEXT
    if not streaming or fault != "code=cut;times=1":
        assert result["headers"]["parry-attempts"] == "2"


@each_way
@each_api
def test_another_model_answers(driver, gateway, api, streaming):  # noqa: F811
    model = "claude-worn" if api == "messages" else "worn"
    result = driver.run(**case(gateway, api, streaming, fault="code=404;times=1", body={"model": model}))
    assert text_of(api, result) == TEXT
    assert result["headers"]["parry-target"] == ("claude" if api == "messages" else "p") + "/fresh"


@each_way
@each_api
def test_what_stays_broken_is_the_sdks_own_error(driver, gateway, api, streaming):  # noqa: F811
    result = driver.run(**case(gateway, api, streaming, fault="code=400"))
    assert result["error"]["status"] == 400 and result["error"]["name"] == "BadRequestError"
    result = driver.run(**case(gateway, api, streaming, fault="code=500"))
    assert result["error"]["status"] == 500 and result["error"]["name"] == "InternalServerError"


@each_way
@each_api
def test_a_wrong_request_reaches_nobody(driver, gateway, sim, api, streaming):  # noqa: F811
    before = sim.stats()["total"]
    wrong = {"input": 7} if api == "responses" else {"messages": []}
    result = driver.run(**case(gateway, api, streaming, body=wrong))
    assert result["error"]["status"] == 400 and result["error"]["name"] == "BadRequestError"
    assert sim.stats()["total"] == before


@each_api
def test_faults_on_purpose_are_recovered_from_and_end(driver, gateway, sim, api):  # noqa: F811
    body = {"model": "unlucky"}
    gateway.command("chaos", "arm", "busy", "--for", "1m")
    result = driver.run(**case(gateway, api, body=body))
    assert result["error"]["status"] in (503, 529)
    gateway.command("chaos", "off")
    assert text_of(api, driver.run(**case(gateway, api, body=body))) == TEXT


def test_nothing_is_left_behind(gateway, driver):  # noqa: F811
    gateway.wait_idle()
    assert not gateway.log("policy fault")
