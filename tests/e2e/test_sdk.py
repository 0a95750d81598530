"""The official SDKs of OpenAI and Anthropic (npm), unmodified, retries off, with their base URL set to parry.

Shows, plain and streaming: tool calls, unicode, a prompt of 1 MB and integers beyond 2^53 arrive byte for byte;
429, 503, reset, silence, an error inside a 200 and a cut before content recover without the SDK noticing; a 400 is
sent once and is the SDK's own class of error; what fails after content reaches the program as the SDK's typed
error; and when the program aborts, the provider is told within 0.5 s. All of it twice: through the standard chain, and
through every policy that is shipped at once.

The versions are those of sdk/package-lock.json. They are installed once per build (npm ci); PARRY_NODE names
another node than the one in PATH.
"""

import hashlib
import itertools
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import tempfile
import threading

import pytest

from harness import PARRY, SHARE, answer, chain, chunk, event, stream_head, wait_until

HERE = pathlib.Path(__file__).parent / "sdk"
NODE = os.environ.get("PARRY_NODE") or "node"
KEY = "sk-of-the-gateway-123456"
TEXT = "grüße 你好 🚀 \u2028 \" \\ \t end"


# --- Driving the SDKs ------------------------------------------------------------------------------------


def installed():
    """The folder that holds the packages of the lock file; filled when it is not there yet."""
    for tool in (NODE, "npm"):
        if not shutil.which(tool):
            pytest.fail(f"{tool} is missing: run `./dev deps` (Debian: apt-get install nodejs npm)")
    lock = (HERE / "package-lock.json").read_bytes()
    beside = pathlib.Path(PARRY).parent
    root = beside if os.access(beside, os.W_OK) and beside.name else pathlib.Path(tempfile.gettempdir())
    folder = root / f"e2e-sdk-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not folder.exists():
        made = pathlib.Path(tempfile.mkdtemp(prefix="e2e-sdk-", dir=root))
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)
        if done.returncode:
            shutil.rmtree(made)
            pytest.fail("npm ci could not install the SDKs; it needs the network or npm's cache:\n" + done.stderr)
        try:
            made.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(made)
    return folder


class Driver:
    """sdk/driver.mjs: cases go in, results come out, any number at a time."""

    made = itertools.count()

    def __init__(self):
        folder = installed()
        # A module finds its packages by where it stands.
        script = folder / f"driver-{os.getpid()}-{next(Driver.made)}.mjs"
        shutil.copy(HERE / "driver.mjs", script)
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.script = script
        self.process = subprocess.Popen([NODE, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8", env=env)
        self._ids = itertools.count()
        self._waiting = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            result = json.loads(line)
            self._waiting.pop(result["id"]).put(result)

    def start(self, **case):
        case["id"] = next(self._ids)
        self._waiting[case["id"]] = box = queue.Queue()
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return box

    def run(self, **case):
        return self.start(**case).get(timeout=40)

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()
        self.script.unlink()


@pytest.fixture(scope="module")
def driver():
    made = Driver()
    yield made
    made.stop()


@pytest.fixture
def young_driver():
    """For aborts: Node forgets to abort a request whose Request object its garbage collector took meanwhile
    (nodejs/undici#3644, open). A process that has just begun has nothing to collect yet."""
    made = Driver()
    yield made
    made.stop()


# In the order that policies/init.lua recommends. What they allow is more than these tests do.
EVERY_POLICY = """{
    use "client_limits" { limits = { ["*"] = { calls_per_minute = 100000, concurrent = 1000 } } },
    use "validate",
    use "file_check",
    use "session_queue",
    use "concurrency" { slots = 500 },
    use "rate_limit" { limit = 10000, per = 1 },
    use "circuit_breaker" { failures = 50 },
    use "health" { interval = 3600 },
    use "chaos" { experiments = { busy = { category = "overloaded", rate = 1 } } },
    use "token_refresh",
    use "keys",
    use "retry" { max_attempts = 4, base = 0.05, cap = 0.2, adaptive = 0.01, quota = 1000 },
    use "fallback_model" { stick = 60 },
    use "alert",
    use "standard_errors" { style = "client" },
  }"""
CHAINS = {"standard": chain(), "every": EVERY_POLICY}


def init_for(url, policies="standard"):
    options = f"deadline = 30, timeouts = {{ first_byte = 1, idle = 1 }}, chain = {CHAINS[policies]}"
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "claude" {{ base_url = "{url}/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }}
route "/v1/*" {{ to = "p", {options} }}
route "/v1/messages*" {{ to = "claude", {options} }}
"""


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim()


@pytest.fixture(scope="module", params=CHAINS)
def gateway(start_once, sim, request):
    return start_once.gateway(init_for(sim.url, request.param), env={"KEY": KEY})


def test_every_policy_is_every_policy():
    shipped = {path.stem for path in pathlib.Path(SHARE).glob("*.lua")} - {"init"}
    assert {name for name in shipped if not name.endswith("_test")} == set(re.findall(r'use "(\w+)"', EVERY_POLICY))


numbers = itertools.count(1)
APIS = {"chat": "openai", "responses": "openai", "messages": "anthropic"}
each_api = pytest.mark.parametrize("api", APIS)
each_way = pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])


def case(gateway, api, streaming=False, text=TEXT, fault=None, **more):
    """A case for the driver. `body` adds to the request."""
    sdk = APIS.get(api) or more.pop("sdk")
    number = next(numbers)
    # A target of its own: what rate_limit learns from one case's 429 is not about the others.
    body = {"model": f"claude-{number}" if sdk == "anthropic" else f"gpt-{number}"}
    if api == "responses":
        body["input"] = [{"role": "user", "content": text}]
    else:
        body["messages"] = [{"role": "user", "content": text}]
    if sdk == "anthropic":
        body["max_tokens"] = 4096
    if streaming:
        body["stream"] = True
    body.update(more.pop("body", {}))
    headers = {"x-sim-key": f"sdk{number}"}
    if fault:
        headers["x-sim-fault"] = fault
    base = gateway.url + ("" if sdk == "anthropic" else "/v1")
    return {"sdk": sdk, "api": api, "baseURL": base, "body": body, "headers": headers, **more}


def text_of(api, result):
    """What the model said, plain or put together from a stream."""
    assert "error" not in result, result["error"]
    if result["chunks"]:
        chunks = result["chunks"]
        return "".join({"chat": lambda c: (c["choices"][0]["delta"].get("content") or "") if c["choices"] else "",
                        "responses": lambda c: c["delta"] if c["type"] == "response.output_text.delta" else "",
                        "messages": lambda c: c["delta"].get("text", "") if c["type"] == "content_block_delta" else "",
                        }[api](c) for c in chunks)
    data = result["data"]
    return {"chat": lambda: data["choices"][0]["message"]["content"],
            "responses": lambda: data["output_text"],
            "messages": lambda: "".join(part["text"] for part in data["content"])}[api]()


def assert_sent_as_it_was(result, body):
    assert result["sent"] == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


# --- What must arrive untouched ------------------------------------------------------------------------------


@each_way
@each_api
def test_unicode_passes_both_ways(driver, gateway, sim, api, streaming):
    result = driver.run(**case(gateway, api, streaming))
    assert text_of(api, result) == TEXT
    assert_sent_as_it_was(result, sim.last_body())
    assert result["headers"]["parry-attempts"] == "1"


@each_way
@each_api
def test_a_prompt_of_a_megabyte_passes_both_ways(driver, gateway, sim, api, streaming):
    text = "0123456789abcdé你" * 70000
    assert len(text.encode()) > 1024 * 1024
    result = driver.run(**case(gateway, api, streaming, text))
    assert text_of(api, result) == text
    assert_sent_as_it_was(result, sim.last_body())


TOOL = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@pytest.mark.parametrize("fault", [None, "503;times=1", "cut;times=1"])
@each_way
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_tool_calls(driver, gateway, sdk, streaming, fault):
    tool = ({"type": "function", "function": {"name": "look_up", "parameters": TOOL}} if sdk == "openai"
            else {"name": "look_up", "input_schema": TOOL})
    api = "helper" if streaming else {"openai": "chat", "anthropic": "messages"}[sdk]
    result = driver.run(**case(gateway, api, streaming, fault=fault, body={"tools": [tool]},
                               **({"sdk": sdk} if streaming else {})))
    assert "error" not in result, result["error"]
    data = result["data"]
    if sdk == "openai":
        call = data["choices"][0]["message"]["tool_calls"][0]
        assert data["choices"][0]["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == "look_up" and json.loads(call["function"]["arguments"]) == {"text": TEXT}
    else:
        call = next(part for part in data["content"] if part["type"] == "tool_use")
        assert data["stop_reason"] == "tool_use" and call["name"] == "look_up" and call["input"] == {"text": TEXT}


BIG = "123456789012345678901234567890"


@each_way
@pytest.mark.parametrize("fault", [None, "503;times=1"])
@each_api
def test_integers_beyond_2_53_arrive_byte_for_byte(driver, gateway, sim, api, fault, streaming):
    result = driver.run(**case(gateway, api, streaming, fault=fault, body={"metadata": {"n": "@big"}}, big=BIG))
    assert text_of(api, result) == TEXT
    body = sim.last_body()
    assert b'{"n":' + BIG.encode() + b"}" in body
    assert_sent_as_it_was(result, body)


def test_integers_beyond_2_53_come_back_byte_for_byte(driver, start):
    plain = b'{"id":"c","object":"chat.completion","created":9007199254740993,"model":"m","x":' + BIG.encode() + b"}"
    events = [event('{"choices":[{"delta":{"content":"a"}}],"created":9007199254740993}'), event("[DONE]")]
    provider = start.provider(answer(200, plain), stream_head() + b"".join(map(chunk, events)) + b"0\r\n\r\n")
    gateway = start.gateway(init_for(provider.url), env={"KEY": KEY})
    assert driver.run(**case(gateway, "chat", raw=True))["data"].encode() == plain
    assert driver.run(**case(gateway, "chat", True, raw=True))["data"].encode() == b"".join(events)


# --- What must be recovered ----------------------------------------------------------------------------------


FAULTS = ["429;retry-after=0.2", "503", "500", "529", "reset", "hang", "error-200", "cut", "html-502", "garbage"]


@pytest.mark.parametrize("fault", FAULTS)
@each_way
@each_api
def test_the_sdk_does_not_notice_a_failure_that_passes(driver, gateway, api, streaming, fault):
    result = driver.run(**case(gateway, api, streaming, fault=f"{fault};times=1"))
    assert text_of(api, result) == TEXT
    assert result["headers"]["parry-attempts"] == "2"


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_the_sdk_s_own_stream_helper_sees_one_clean_stream(driver, gateway, sdk):
    result = driver.run(**case(gateway, "helper", True, fault="cut;times=2", sdk=sdk))
    assert text_of({"openai": "chat", "anthropic": "messages"}[sdk], result) == TEXT


def test_many_programs_at_once(driver, gateway):
    """Few enough of them fail that the retry budget (3 at a time at least) lets each be tried again."""
    faults = iter(["503;times=1", "reset;times=1", "cut;times=1"])
    cases = [case(gateway, api, streaming, text=f"{n} {TEXT}",
                  fault=next(faults, None) if n == 3 and streaming else None)
             for n in range(8) for api in APIS for streaming in (False, True)]
    boxes = [driver.start(**one) for one in cases]
    for one, box in zip(cases, boxes):
        content = one["body"].get("messages") or one["body"]["input"]
        assert text_of(one["api"], box.get(timeout=40)) == content[0]["content"]


# --- What must reach the program ------------------------------------------------------------------------------


CLASSES = {"400": ("BadRequestError", 400), "401": ("AuthenticationError", 401), "403": ("PermissionDeniedError", 403),
           "404": ("NotFoundError", 404)}


@pytest.mark.parametrize("fault", CLASSES)
@each_way
@each_api
def test_what_cannot_be_mended_is_sent_once_and_is_the_sdk_s_own_error(driver, gateway, sim, api, streaming, fault):
    before = sim.stats()["total"]
    error = driver.run(**case(gateway, api, streaming, fault=fault))["error"]
    name, status = CLASSES[fault]
    assert (error["name"], error["status"], error["isAPIError"]) == (name, status, True), error
    assert error["message"] and error["headers"]["parry-attempts"] == "1"
    assert sim.stats()["total"] == before + 1


@pytest.mark.parametrize("fault,status", [("429;retry-after=100", 429), ("503", 503), ("reset", 502)])
@each_api
def test_what_stays_broken_is_the_sdk_s_own_error(driver, gateway, api, fault, status):
    error = driver.run(**case(gateway, api, fault=fault))["error"]
    assert error["isAPIError"] and error["status"] == status, error
    assert error["name"] in ("RateLimitError", "InternalServerError", "ServiceUnavailableError"), error
    if status == 429:
        assert error["headers"]["retry-after"] == "100"


@pytest.mark.parametrize("fault", ["cut-after", "stall-after", "error-after"])
@each_api
def test_a_failure_after_content_is_the_sdk_s_typed_error(driver, gateway, sim, api, fault):
    before = sim.stats()["total"]
    result = driver.run(**case(gateway, api, True, fault=fault, text=TEXT * 10))
    assert result["chunks"], "the program has had content"
    assert sim.stats()["total"] == before + 1, "and nothing was tried again"
    error = result.get("error")
    if api == "responses" and not error:
        # Responses has its own word for it, an event of type `error`, which this SDK hands to the program as it is.
        assert result["chunks"][-1]["type"] in ("error", "response.failed"), result["chunks"][-1]
        return
    assert error and error["isAPIError"] and not error["isConnection"], result
    assert error["message"] and error["body"], error


# --- Programs that leave ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault,abort,streaming", [
    ("code=slow;delay=0.2", "content", True), ("stall-after", "content", True), ("hang", 300, False),
    ("hang", 300, True)],
    ids=["slow stream", "silent stream", "no answer", "no answer, stream"])
@each_api
def test_an_abort_cancels_the_attempt_at_once(young_driver, gateway, sim, api, fault, abort, streaming):
    before = sim.stats()["cancelled"]
    result = young_driver.run(**case(gateway, api, streaming, fault=fault, abort=abort, text=TEXT * 10))
    wait_until(lambda: sim.stats()["cancelled"] == before + 1, "the provider is told", 0.5)
    assert streaming and abort == "content" or result["error"]["isAbort"], result
    wait_until(lambda: gateway.status()["calls_open"] == 0, "the call is over", 0.5)


@each_api
def test_an_abort_in_backoff_ends_the_call(young_driver, gateway, sim, api):
    before = sim.stats()["total"]
    result = young_driver.run(**case(gateway, api, fault="503;retry-after=20", abort=500))
    assert result["error"]["isAbort"], result
    wait_until(lambda: gateway.status()["calls_open"] == 0, "the call is over", 0.5)
    assert sim.stats()["total"] == before + 1
