"""`parry errors`: the last failed attempts and the pattern they make (MISSION row 9), asked for over the admin listener.

Shows: counts by category, status, code and target agree with what failed; newest first; no message, no body, no secret.
"""

import collections
import json

import pytest

from harness import answer, failure, ok, refused_port

INIT = """
provider "p" {{ base_url = "{p}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "gone" {{ base_url = "http://127.0.0.1:{port}/v1", dialect = "openai" }}
route "/v1/*" {{ to = by_model {{ ["gone"] = "gone", ["*"] = "p" }},
                 chain = {{ use "circuit_breaker" {{ failures = 3, cooldown = 60 }} }} }}
"""


def test_the_pattern_of_the_last_errors(start):
    port, holder = refused_port()
    statuses = [429] * 3 + [400] * 2
    p = start.provider(*[failure(status, "a message with sk-errors-0123456789", code=f"c{status}") for status in statuses],
                       otherwise=ok("fine"))
    gateway = start.gateway(INIT.format(p=p.url, port=port), env={"KEY": "sk-errors-0123456789"})
    assert gateway.ask("GET", "/api/v1/errors").json()["pattern"]["count"] == 0
    assert "no attempt has failed" in gateway.command("errors").stdout
    for _ in statuses:
        gateway.chat("m")
    for _ in range(4):
        gateway.chat("gone")
    assert gateway.chat("m").status == 200
    reply = gateway.ask("GET", "/api/v1/errors")
    found = reply.json()
    pattern = {trait: {one["name"]: one["count"] for one in found["pattern"][trait]}
               for trait in ("by_category", "by_status", "by_code", "by_target")}
    assert found["seen"] == found["pattern"]["count"] == 9
    assert pattern["by_category"] == {"network": 3, "rate_limit": 3, "invalid_request": 2, "overloaded": 1}
    assert pattern["by_status"] == {"none": 4, "429": 3, "400": 2}
    assert pattern["by_target"] == {"p/m": 5, "gone/gone": 4}
    assert pattern["by_code"]["circuit_open"] == 1 and pattern["by_code"]["c429"] == 3
    assert collections.Counter(error["refused"] for error in found["errors"]) == {False: 8, True: 1}
    times = [error["time"] for error in found["errors"]]
    assert times == sorted(times, reverse=True) and found["errors"][0]["code"] == "circuit_open"
    assert "sk-errors" not in reply.text and "message" not in reply.text
    two = json.loads(gateway.command("errors", "-n", "2", "--json").stdout)
    assert two["pattern"]["count"] == 2 and two["seen"] == 9
    said = gateway.command("errors").stdout
    assert "the last 9 of 9 failed attempts" in said and "refused by parry, nothing sent" in said
    assert gateway.ask("GET", "/api/v1/errors?limit=many").status == 400
    holder.close()


def test_no_more_than_the_last_are_kept(start):
    p = start.provider(otherwise=failure(500))
    gateway = start.gateway(f'provider "p" {{ base_url = "{p.url}/v1", dialect = "openai" }}\n'
                            'route "/v1/*" { to = "p", chain = { use "retry" { max_attempts = 12, base = 0, cap = 0 } } }\n')
    for number in range(60):
        gateway.chat(f"m{number}")
    found = gateway.ask("GET", "/api/v1/errors?limit=9999").json()
    assert found["seen"] == 720 and found["pattern"]["count"] == 512
    assert found["errors"][0]["target"] == "p/m59" and found["errors"][-1]["target"] == "p/m17"


@pytest.mark.parametrize("key", ["sk-echo-0123456789", "sk-echo-" + "0123456789" * 8], ids=["short", "longer than a code"])
def test_a_key_repeated_as_a_code_is_told_nobody(start, key):
    """A provider may name the key it refuses in `code` or in a field. It stood in events, errors, checks and their
    commands, and in the code that clients were told; cut to a code's size, no search for the whole key finds it."""
    told = [failure(401, "no", code=key), failure(500, "x" * 500 + key, code=f"key:{key}"),
            answer(400, b"", {"x-amzn-errortype": key}),
            answer(200, b'data: {"error":{"message":"m","code":"%s"}}\n\n' % key.encode(),
                   {"content-type": "text/event-stream"})]
    p = start.provider(*told, otherwise=failure(401, f"bad {key}", code=key))
    gateway = start.gateway(f'provider "p" {{ base_url = "{p.url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}\n'
                            'route "/v1/*" { to = "p", chain = { use "alert" } }\n', env={"KEY": key})
    said = [gateway.chat("m", stream=n == 3) for n in range(4)]
    assert [reply.status for reply in said[:3]] == [401, 500, 400] and len(p.asked) == 4
    said = [reply.text + str(reply.headers.items()) for reply in said]
    said += [gateway.ask("GET", f"/api/v1/{what}").text for what in ("events", "errors", "alerts", "status")]
    said += [gateway.ask("GET", "/metrics").text, gateway.ask("POST", "/api/v1/health?target=p/m").text]
    said += [gateway.command("errors").stdout, gateway.command("health").stdout, gateway.output]
    for text in said:
        assert key[:30] not in text, text
