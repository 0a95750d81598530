"""Several keys of one provider, and what calls cost, over real sockets with a provider that judges by key.

Shows, with the exact number of upstream calls: a refused key costs one call its first attempt and is not asked with
again (0 calls) until its time is over or its secret has another value; a limited key rests for its Retry-After while the
others work; 100 concurrent callers all get answers and one alert is sent; with all keys refused nothing is sent at all;
a reload forgets nothing; and no value of a key appears in what parry says.
"""

import json
import threading

import pytest

from harness import answer, failure, run_parry, wait_until

SECRETS = {"K1": "first-key-value-1", "K2": "second-key-value-2", "K3": "third-key-value-3"}
NAMES = {value: name for name, value in SECRETS.items()}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
GOOD = answer(200, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE, "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]})


class Judge:
    """Answers by the key that a request came with; `answers` may be changed while it runs."""

    def __init__(self, start, **answers):
        self.answers = dict(answers)
        self.gate = None  # a Barrier at which the requests with K1 meet before any is answered
        self.provider = start.provider(otherwise=self._answer)
        self.url = self.provider.url

    def _answer(self, asked):
        key = asked.headers["authorization"].removeprefix("Bearer ")
        name = NAMES.get(key, key)
        if self.gate and name == "K1":
            self.gate.wait(20)
        asked.send(self.answers.get(name, GOOD))
        return True

    def calls(self):
        """How often each key was used since the last time."""
        found = {}
        for asked in self.provider.asked:
            key = asked.headers["authorization"].removeprefix("Bearer ")
            name = NAMES.get(key, key)
            found[name] = found.get(name, 0) + 1
        self.provider.asked.clear()
        return found


def init_for(url, keys='keys = { secret "K2", secret "K3" },', policy="", route=""):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "K1"), {keys}
               models = {{ m = {{ input = 2, output = 10 }} }} }}
sink "ops" {{ webhook = secret "OPS" }}
route "/v1/*" {{ to = "p", deadline = 30, {route} chain = {{
  use "keys" {{ to = "ops", {policy} }},
  use "retry" {{ max_attempts = 4, base = 0.05, cap = 0.2 }},
}} }}
"""


@pytest.fixture
def hook(start):
    return start.provider(otherwise=answer(200, {}))


def serve(start, judge, hook, env=SECRETS, **options):
    return start.gateway(init_for(judge.url, **options), env={**env, "OPS": hook.url + "/hook"})


def states(gateway):
    return {key["key"]: key["state"] for key in gateway.status()["keys"]}


def assert_secret(gateway, *more):
    said = gateway.output + json.dumps(gateway.status()) + gateway.ask("GET", "/metrics").text \
        + gateway.ask("GET", "/api/v1/events?limit=1000").text + "".join(more)
    for value in SECRETS.values():
        assert value not in said, value


def many(gateway, count):
    replies = []

    def one():
        replies.append(gateway.chat("m"))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == count
    return replies


@pytest.mark.parametrize("refusal", [
    failure(401, "Incorrect API key provided: " + SECRETS["K1"], "invalid_api_key"),
    answer(402, {"error": {"message": "no money", "type": "insufficient_balance", "param": None, "code": None}}),
    answer(429, {"error": {"message": "check your plan", "type": "insufficient_quota", "code": "insufficient_quota"}}),
    answer(403, {"error": {"message": "frozen", "type": "api_key_frozen", "param": None, "code": None}}),
], ids=["auth", "billing", "quota", "frozen"])
def test_a_refused_key_is_not_asked_with_again(start, hook, refusal):
    """APISIX pull request 13852: 401 and 402 went straight to the client while good keys were idle."""
    judge = Judge(start, K1=refusal)
    gateway = serve(start, judge, hook)
    first = gateway.chat("m")
    assert (first.status, first.attempts) == (200, 2), first
    assert judge.calls() == {"K1": 1, "K2": 1}
    assert [gateway.chat("m").status for _ in range(20)] == [200] * 20
    assert judge.calls() == {"K2": 20}
    assert states(gateway) == {"K1": "retired", "K2": "usable", "K3": "usable"}
    assert gateway.metrics()['parry_key_usable{provider="p",key="K1"}'] == 0
    wait_until(lambda: len(hook.asked) == 1, "the alert")
    alert = hook.asked[0].body.decode()
    assert "key K1 of p" in alert
    shown = gateway.command("status")
    assert "K1  retired for" in shown.stdout, shown.stdout
    assert_secret(gateway, alert, shown.stdout, first.text)


def test_a_retired_key_comes_back(start, hook):
    judge = Judge(start, K1=failure(401, "no", "invalid_api_key"))
    gateway = serve(start, judge, hook, policy="retire = 1.5")
    assert gateway.chat("m").status == 200
    judge.answers.clear()
    judge.calls()

    def back():
        assert gateway.chat("m").status == 200
        return judge.calls() == {"K1": 1}
    wait_until(back, "K1 is used again")
    wait_until(lambda: len(hook.asked) == 2 and b"resolved" in hook.asked[1].body, "the alert is over")


def test_a_limited_key_rests_while_the_others_work(start, hook):
    judge = Judge(start, K1=failure(429, "slow down", "rate_limit_exceeded", {"Retry-After": "30"}))
    gateway = serve(start, judge, hook)
    first = gateway.chat("m")
    assert (first.status, first.attempts) == (200, 2) and first.seconds < 10, first
    assert [gateway.chat("m").status for _ in range(5)] == [200] * 5
    assert judge.calls() == {"K1": 1, "K2": 6}
    assert states(gateway)["K1"] == "paused"
    assert hook.asked == []  # nobody needs to come


def test_a_hundred_concurrent_callers(start, hook):
    """All of them are at the provider with the bad key before the first one is refused; each rotates, free of the retry
    budget, and one alert is sent. Later calls know."""
    judge = Judge(start, K1=failure(401, "no", "invalid_api_key"))
    gateway = serve(start, judge, hook)
    judge.gate = threading.Barrier(100)
    replies = many(gateway, 100)
    assert [reply.status for reply in replies] == [200] * 100
    assert all(reply.attempts == 2 for reply in replies)
    assert judge.calls() == {"K1": 100, "K2": 100}
    assert [reply.status for reply in many(gateway, 100)] == [200] * 100
    assert judge.calls() == {"K2": 100}
    wait_until(lambda: hook.asked, "the alert")
    gateway.wait_idle()
    assert len(hook.asked) == 1


def test_with_all_keys_refused_nothing_is_sent(start, hook):
    refused = failure(401, "no", "invalid_api_key")
    judge = Judge(start, K1=refused, K2=refused, K3=refused)
    gateway = serve(start, judge, hook)
    assert gateway.chat("m").status == 401
    assert judge.calls() == {"K1": 1, "K2": 1, "K3": 1}
    replies = many(gateway, 20)
    assert [reply.status for reply in replies] == [401] * 20
    assert all(reply.json()["error"]["code"] == "no_usable_key" for reply in replies)
    assert judge.calls() == {}


def test_with_all_keys_limited_clients_hear_when_to_come_back(start, hook):
    judge = Judge(start, **{name: failure(429, "slow", "rate_limit_exceeded", {"Retry-After": str(after)})
                            for name, after in (("K1", 90), ("K2", 60), ("K3", 120))})
    gateway = serve(start, judge, hook)
    assert gateway.chat("m").status == 429
    assert judge.calls() == {"K1": 1, "K2": 1, "K3": 1}
    reply = gateway.chat("m")
    assert reply.status == 429 and reply.json()["error"]["code"] == "no_usable_key"
    assert 50 <= int(reply.headers["retry-after"]) <= 60
    assert judge.calls() == {}


def test_a_reload_forgets_nothing_until_the_secret_changes(start, hook, tmp_path):
    (tmp_path / "k1").write_text(SECRETS["K1"])
    env = {name: value for name, value in SECRETS.items() if name != "K1"}
    env["K1_FILE"] = str(tmp_path / "k1")
    judge = Judge(start, K1=failure(401, "no", "invalid_api_key"))
    gateway = serve(start, judge, hook, env=env)
    assert gateway.chat("m").status == 200
    judge.calls()
    init = gateway.folder.read("init.lua")
    gateway.folder.write("init.lua", init + "\n-- touched\n")
    assert gateway.command("reload", "--wait").returncode == 0
    assert gateway.chat("m").status == 200
    assert judge.calls() == {"K2": 1}
    (tmp_path / "k1").write_text("a-fresh-key-value-4\n")
    gateway.folder.write("init.lua", init + "\n-- touched again\n")
    assert gateway.command("reload", "--wait").returncode == 0
    assert gateway.chat("m").status == 200
    assert judge.calls() == {"a-fresh-key-value-4": 1}
    assert states(gateway)["K1"] == "usable"


def test_one_key_stays_in_use(start, hook):
    judge = Judge(start, K1=failure(401, "no", "invalid_api_key"))
    gateway = serve(start, judge, hook, keys="")
    replies = [gateway.chat("m") for _ in range(5)]
    assert [reply.status for reply in replies] == [401] * 5
    assert all(reply.json()["error"]["message"] == "no" for reply in replies)
    assert judge.calls() == {"K1": 5}
    assert gateway.status()["keys"] == []


def test_a_stream_that_is_refused_rotates_too(start, hook):
    judge = Judge(start, K1=failure(401, "no", "invalid_api_key"))
    gateway = serve(start, judge, hook)
    reply = gateway.chat("m", stream=True)
    assert reply.status == 200 and reply.attempts == 2
    assert judge.calls() == {"K1": 1, "K2": 1}


def test_tokens_and_cost_are_counted(start, hook):
    judge = Judge(start)
    gateway = serve(start, judge, hook)
    for _ in range(3):
        assert gateway.chat("m").status == 200
    gateway.wait_idle()
    metrics = gateway.metrics()
    assert metrics['parry_tokens_total{target="p/m",kind="input"}'] == 3000
    assert metrics['parry_tokens_total{target="p/m",kind="output"}'] == 300
    assert metrics['parry_cost_total{target="p/m"}'] == pytest.approx(3 * (1000 * 2 + 100 * 10) / 1e6)
    events = gateway.ask("GET", "/api/v1/events?limit=1000").text
    assert '"tokens":{"input":1000,"output":100,"cached":0}' in events
    assert_secret(gateway)


def test_max_cost_stops_spending(start, hook):
    """A failure that is paid for is not paid for again and again."""
    judge = Judge(start, K1=answer(500, {"error": {"message": "x"}, "usage": {**USAGE, "prompt_tokens": 1000000}}))
    gateway = serve(start, judge, hook, keys="", route="max_cost = 4,")
    reply = gateway.chat("m")
    assert reply.status == 500 and reply.attempts == 2
    assert judge.calls() == {"K1": 2}
    refused = gateway.wait_log("verdict not carried out", lambda entry: entry["call_id"] == reply.call_id)
    assert refused["because"] == "the call has cost the route's max_cost"


def test_check_lists_every_key(start, hook):
    folder = start.folder(init_for("http://127.0.0.1:9"))
    done = run_parry("check", "--no-tests", "--json", folder.path, env={"K1": SECRETS["K1"], "K3": SECRETS["K3"]})
    found = {secret["name"]: secret["found"] for secret in json.loads(done.stdout)["secrets"]}
    assert found == {"K1": True, "K2": False, "K3": True, "OPS": False}
    assert 'secret \\"K2\\" was not found' in done.stdout
    assert not any(value in done.stdout for value in SECRETS.values())
