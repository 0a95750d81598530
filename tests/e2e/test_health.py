"""Checks of targets over real sockets: `parry health`, alone and through the running parry, and the policy `health`.

Shows: a wrong key is ✗ under auth, a model that is not there ✗ under model, a provider that is not there ✗ under
connectivity, a good one ✓ three times, with exit codes 0, 1, 2 and 3; no key is ever printed; what the policy finds moves
calls elsewhere and back; and alerts say so.
"""

import json
import threading

import pytest

from harness import answer, ok, refused_port, run_parry, wait_until

KEYS = {"KEY": "sk-health-0123456789abcdef", "WRONG": "sk-wrong-0123456789abcdef"}
MODELS = {"object": "list", "data": [{"id": "good"}, {"id": "spare"}]}


def init_for(sim, port):
    return f"""
provider "p" {{ base_url = "{sim.url}/v1", dialect = "openai", auth = bearer(secret "KEY"),
               models = {{ "sim-429", "missing" }} }}
provider "wrong" {{ base_url = "{sim.url}/auth/v1", dialect = "openai", auth = bearer(secret "WRONG") }}
provider "claude" {{ base_url = "{sim.url}/auth/v1/messages", dialect = "anthropic",
                    auth = header("x-api-key", secret "WRONG") }}
provider "kimi" {{ base_url = "{sim.url}/kimi-auth/v1", dialect = "kimi", auth = bearer(secret "WRONG") }}
provider "keyless" {{ base_url = "{sim.url}/v1", dialect = "openai", auth = bearer(secret "NOT_THERE") }}
provider "gone" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}
provider "unused" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}
route "/v1/*" {{ to = by_model {{ ["w*"] = "wrong", ["c*"] = "claude", ["k*"] = "kimi", ["l*"] = "keyless",
                                ["g*"] = "gone", ["*"] = "p" }}, chain = {{ use "circuit_breaker" }} }}
"""


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim()


@pytest.fixture(scope="module")
def port():
    number, holder = refused_port()
    yield number
    holder.close()


@pytest.fixture(scope="module")
def gateway(start_once, sim, port):
    return start_once.gateway(init_for(sim, port), env=KEYS)


def check_all(done):
    """What every way of asking must find."""
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    targets = {target["target"]: target for target in found["targets"]}
    marks = {name: tuple(target[mark] for mark in ("ok", "connectivity", "auth", "model"))
             for name, target in targets.items()}
    assert marks == {
        "p/sim-429": (True, True, True, True),
        "p/missing": (False, True, True, False),
        "wrong": (False, True, False, None),
        "claude": (False, True, False, None),
        "kimi": (False, True, False, None),
        "keyless": (False, True, False, None),
        "gone": (False, False, None, None),
    }
    assert (targets["wrong"]["category"], targets["wrong"]["status"], targets["wrong"]["code"]) == (
        "auth", 401, "invalid_api_key")
    assert (targets["kimi"]["category"], targets["kimi"]["code"]) == ("auth", "-2002")
    assert targets["keyless"]["code"] == "no_secret"
    assert (targets["p/missing"]["category"], targets["p/missing"]["status"]) == ("not_found", 404)
    assert targets["gone"]["category"] == "network"
    assert targets["p/sim-429"]["tcp"] > 0 and targets["gone"]["tcp"] is None
    for secret in KEYS.values():
        assert secret not in done.stdout + done.stderr


def test_the_running_parry_says_what_is_wrong_with_each_target(gateway):
    check_all(gateway.command("health", "--json"))


def test_without_a_running_parry(gateway):
    check_all(run_parry("health", "--json", "--policies", gateway.folder.path, env=KEYS))


def test_a_table_for_people(gateway):
    done = gateway.command("health", "p/sim-429", "wrong", "gone")
    assert done.returncode == 1
    good, wrong, gone = done.stdout.splitlines()
    assert good.startswith("✓ p/sim-429  connectivity ✓  auth ✓  model ✓"), good
    assert wrong.startswith("✗ wrong      connectivity ✓  auth ✗  model -"), wrong
    assert "auth 401 invalid_api_key" in wrong and "parry check -v" in wrong, wrong
    assert gone.startswith("✗ gone       connectivity ✗  auth -  model -"), gone


def test_exit_codes(gateway, tmp_path):
    assert gateway.command("health", "p/sim-429").returncode == 0
    assert gateway.command("health", "p").returncode == 0
    assert gateway.command("health", "--probe", "connect", "wrong").returncode == 0
    assert gateway.command("health", "p/missing").returncode == 1
    unknown = gateway.command("health", "nobody/x")
    assert unknown.returncode == 1 and "no_such_provider" in unknown.stdout
    assert gateway.command("health", "--probe", "guess").returncode == 2
    assert gateway.command("health", "--timeout", "0").returncode == 2
    assert run_parry("health", "--admin", f"unix:{tmp_path}/nobody.sock").returncode == 3
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "init.lua").write_text("route {")
    refused = run_parry("health", "--policies", broken)
    assert refused.returncode == 1 and "init.lua:1" in refused.stdout + refused.stderr


def test_odd_names_arrive_as_they_are(gateway):
    for name in ("p/deepseek-ai/V3", "p/a b&target=gone", "p/100%", "p/模型"):
        done = gateway.command("health", "--json", name)
        assert [target["target"] for target in json.loads(done.stdout)["targets"]] == [name]


def test_questions_that_are_none(gateway):
    for query in ("probe=guess", "timeout=soon", "target=%", "target=%zz", "target=%00"):
        assert gateway.ask("POST", f"/api/v1/health?{query}").status == 400, query
    assert gateway.ask("GET", "/api/v1/health").status == 405


def test_a_completion_costs_one_token_and_sees_what_the_list_does_not(sim, gateway):
    before = sim.stats()["models"].get("missing", 0)
    done = gateway.command("health", "--probe", "completion", "p/missing")
    assert done.returncode == 0, done.stdout  # the sim answers to any name
    assert sim.stats()["models"]["missing"] == before + 1
    assert json.loads(sim.last_body())["max_tokens"] == 1


def test_a_hanging_provider_is_told_after_the_timeout(start):
    provider = start.provider(otherwise=lambda asked: asked.hang())
    gateway = start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", chain = {{ use "circuit_breaker" }} }}""")
    done = gateway.command("health", "--json", "--timeout", "0.3")
    assert done.returncode == 1
    (target,) = json.loads(done.stdout)["targets"]
    assert target["connectivity"] is False and target["category"] == "timeout", target


PAGES = {"redirect": answer(302, b"", {"Location": "https://login.example/"}),
         "page": answer(200, b"\xef\xbb\xbf\n<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"})}


@pytest.mark.parametrize("name", PAGES)
def test_a_login_page_is_no_good_key(start, name):
    """A portal that sends everybody to its login was told as a good key, and any model as one that is there."""
    provider = start.provider(otherwise=PAGES[name])
    gateway = start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", auth = bearer(secret "KEY"), models = {{ "m" }} }}
route "/v1/*" {{ to = "p", chain = {{ use "circuit_breaker" }} }}""", env=KEYS)
    (found,) = json.loads(gateway.command("health", "--json").stdout)["targets"]
    assert (found["connectivity"], found["auth"], found["model"]) == (True, None, None) and "base_url" in found["hint"], found
    done = gateway.command("health", "--json", "--probe", "completion")
    (found,) = json.loads(done.stdout)["targets"]
    assert done.returncode == 1 and (found["ok"], found["auth"], found["code"]) == (False, None, "no_api"), found


def test_a_flood_of_questions_is_not_passed_on(start):
    """Each run asks eight targets at a time: 200 of them at once were 1600 connections to one provider, with its key."""
    go_on = threading.Event()

    def wait(asked):
        while not (go_on.wait(0.05) or asked.provider.stopping.is_set()):
            pass
        asked.send(answer(200, MODELS))
        return True

    provider = start.provider(otherwise=wait)
    models = ", ".join(f'"m{n}"' for n in range(10))
    gateway = start.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", models = {{ {models} }} }}
route "/v1/*" {{ to = "p", chain = {{ use "circuit_breaker" }} }}""")
    statuses = []
    askers = [threading.Thread(target=lambda: statuses.append(gateway.ask("POST", "/api/v1/health?timeout=60").status))
              for _ in range(40)]
    for asker in askers:
        asker.start()
    wait_until(lambda: len(statuses) >= 36 and len(provider.asked) >= 32, "what is too much is refused")
    assert statuses == [429] * 36 and len(provider.asked) == 32
    done = gateway.command("health")
    assert done.returncode == 1 and "ask again soon" in done.stderr, done
    go_on.set()
    for asker in askers:
        asker.join()
    assert sorted(statuses) == [200] * 4 + [429] * 36
    assert gateway.ask("POST", "/api/v1/health?timeout=60").status == 200


# --- The policy --------------------------------------------------------------------------------------------


class Switched:
    """A provider whose list of models answers as told; completions are always good."""

    def __init__(self, start):
        self.models = answer(200, MODELS)
        self.provider = start.provider(otherwise=self.serve)
        self.url = self.provider.url

    def serve(self, asked):
        asked.send(self.models if asked.path.endswith("/models") else ok(model=json.loads(asked.body)["model"]))
        return True


def policy_init(provider, targets, fallback="{}"):
    return f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
sink "ops" {{ webhook = secret "OPS" }}
route "/v1/*" {{ to = "p", chain = {{
  use "health" {{ targets = {targets}, interval = 1, jitter = 0, failures = 1, successes = 1, to = "ops" }},
  use "fallback_model" {{ models = {fallback} }} }} }}
"""


def test_calls_go_elsewhere_while_a_target_is_unhealthy(start):
    provider, receiver = Switched(start), start.receiver()
    provider.models = answer(200, {"data": [{"id": "spare"}]})  # "good" is gone, and asked for by name it is, too
    gateway = start.gateway(policy_init(provider, '{ "p/good" }', '{ good = { "p/spare" } }'),
                            env={**KEYS, "OPS": receiver.url})

    def serve(asked):
        if asked.path.endswith("/models/good"):
            asked.send(answer(404, {"error": {"message": "no", "code": "model_not_found"}}))
            return True
        return Switched.serve(provider, asked)
    provider.provider.otherwise = serve
    wait_until(lambda: len(receiver.alerts()) == 1, "the alert that it is unhealthy")
    reply = gateway.chat("good")
    assert reply.status == 200 and reply.target == "p/spare" and reply.attempts == 1, reply
    assert gateway.chat("other").target == "p/other"
    provider.models = answer(200, MODELS)
    wait_until(lambda: len(receiver.alerts()) == 2, "the alert that it is healthy again")
    assert gateway.chat("good").target == "p/good"
    bad, good = receiver.alerts()
    assert bad["state"] == "firing" and "p/good is unhealthy: not_found, HTTP 404" in bad["text"], bad
    assert good["state"] == "resolved" and good["key"] == bad["key"], good
    assert KEYS["KEY"] not in json.dumps(receiver.alerts()) + gateway.output


def test_a_single_target_is_asked_however_unhealthy(start):
    provider, receiver = Switched(start), start.receiver()
    provider.models = answer(401, {"error": {"message": "no", "code": "invalid_api_key"}})
    gateway = start.gateway(policy_init(provider, "{}"), env={**KEYS, "OPS": receiver.url})
    wait_until(lambda: len(receiver.alerts()) == 1, "the alert that it is unhealthy")
    reply = gateway.chat("good")
    assert reply.status == 200 and reply.target == "p/good", reply
