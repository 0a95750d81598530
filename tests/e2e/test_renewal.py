"""Renewing credentials, against a real token endpoint.

Shows: 100 concurrent calls with an expired token cause exactly one renewal and all succeed; a late 401 for the old
token renews nothing; a renewal that fails gives each caller a clear error and people one alert, without a storm on
the token endpoint; a rotated refresh token survives a restart; and no token ever appears in what parry says.
(Renewal in the background takes a minute of real time: tests/unit/test_credential.c shows it in virtual time.)
"""

import json
import os
import stat
import threading

import pytest

from harness import answer, chain, chat_bytes, connect, failure, ok, wait_until

SECRETS = {"OLD_TOKEN": "old-access-token-1", "REFRESH": "first-refresh-token"}

KINDS = {  # grant: (provider's path, dialect, token path)
    "oauth": ("auth/v1", "openai", "oauth/token"),
    "kimi": ("kimi-auth/v1", "kimi", "token/refresh"),
}


def init_for(url, grant="oauth", token_url=None, access_token='access_token = secret "OLD_TOKEN",', deadline=30):
    path, dialect, token_path = KINDS[grant]
    policies = chain().replace('use "token_refresh"', 'use "token_refresh" { to = "ops" }')
    return f"""
provider "p" {{ base_url = "{url}/{path}", dialect = "{dialect}", auth = bearer(credential "c") }}
credential "c" {{ refresh_token = secret "REFRESH", {access_token}
                  token_url = "{token_url or url + '/' + token_path}", grant = "{grant}" }}
sink "ops" {{ webhook = secret "OPS" }}
route "/v1/*" {{ to = "p", deadline = {deadline}, chain = {policies} }}
"""


def many(gateway, count, **options):
    """So many calls at the same time; their replies."""
    barrier, replies = threading.Barrier(count), []

    def one():
        barrier.wait(20)
        replies.append(gateway.chat("m", **options))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == count
    return replies


def credential(gateway):
    return gateway.status()["credentials"][0]


def assert_secret(gateway):
    """No token of any age is in what parry logs or shows."""
    said = gateway.output + json.dumps(gateway.status()) + gateway.ask("GET", "/metrics").text \
        + gateway.ask("GET", "/api/v1/events?limit=1000").text
    for secret in (*SECRETS.values(), "sim-access-", "sim-refresh-"):
        assert secret not in said, secret


@pytest.fixture
def sim(start):
    return start.sim()


@pytest.mark.parametrize("grant", KINDS)
@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
def test_a_hundred_calls_with_an_expired_token_renew_it_once(start, sim, grant, streaming):
    gateway = start.gateway(init_for(sim.url, grant), env={**SECRETS, "OPS": sim.url + "/hook"})
    sim.control("POST", "/sim/token?delay=0.5")  # so that all calls have failed before it comes
    replies = many(gateway, 100, stream=streaming)
    assert [reply.status for reply in replies] == [200] * 100
    assert all(reply.whole and "hello" in (reply.said() if streaming else reply.text) for reply in replies)
    stats = sim.stats()
    assert stats["renewals"] == stats["token_requests"] == 1, stats
    assert all(reply.attempts <= 2 for reply in replies)
    shown = credential(gateway)
    assert shown["renewals"] == 1 and shown["failures"] == 0 and shown["waiting"] == 0, shown

    # Once more, now that it is a token of the endpoint's own.
    sim.control("POST", "/sim/expire")
    assert [reply.status for reply in many(gateway, 100, stream=streaming)] == [200] * 100
    assert sim.stats()["renewals"] == 2
    assert_secret(gateway)


def test_a_late_401_for_the_old_token_renews_nothing(start):
    """Two calls leave with the old token. One is told so at once and renews it; the other is told much later."""
    release = threading.Event()

    def late(asked):
        release.wait(20)
        asked.send(failure(401, code="invalid_api_key"))
        return True

    def by_token(asked):
        if asked.headers["authorization"] != "Bearer new-token":
            asked.send(failure(401, code="invalid_api_key"))
        else:
            asked.send(ok("fine"))
        return True

    provider = start.provider(late, otherwise=by_token)
    tokens = start.provider(answer(200, {"access_token": "new-token", "token_type": "Bearer", "expires_in": 3600}))
    gateway = start.gateway(init_for(provider.url, token_url=tokens.url + "/token"),
                            env={**SECRETS, "OPS": tokens.url + "/hook"})
    replies = []
    slow = threading.Thread(target=lambda: replies.append(gateway.chat("m")))
    slow.start()
    wait_until(lambda: len(provider.asked) == 1, "the slow call has left with the old token")
    assert gateway.chat("m").status == 200
    assert len(tokens.asked) == 1
    release.set()
    slow.join(20)
    assert replies[0].status == 200 and replies[0].attempts == 2, replies
    assert len(tokens.asked) == 1 and credential(gateway)["renewals"] == 1
    assert [asked.headers["authorization"].split()[1] for asked in provider.asked] == \
        ["old-access-token-1", "old-access-token-1", "new-token", "new-token"]


def test_without_an_access_token_the_first_call_fetches_one(start, sim):
    gateway = start.gateway(init_for(sim.url, access_token=""), env={**SECRETS, "OPS": sim.url + "/hook"})
    replies = many(gateway, 20)
    assert [reply.status for reply in replies] == [200] * 20
    assert sim.stats()["token_requests"] == 1 and all(reply.attempts == 1 for reply in replies)


def test_a_renewal_that_fails_is_told_clearly_and_starts_no_storm(start, sim):
    receiver = start.receiver()
    gateway = start.gateway(init_for(sim.url), env={**SECRETS, "OPS": receiver.url + "/hook"})
    sim.control("POST", "/sim/token?fail=1000000&delay=0")
    replies = many(gateway, 50)
    assert {reply.status for reply in replies} == {401}
    assert all(reply.json()["error"]["message"] for reply in replies)
    for _ in range(20):
        assert gateway.chat("m").status == 401
    assert sim.stats()["renewals"] == 0 and sim.stats()["token_requests"] == 1, sim.stats()
    wait_until(receiver.alerts, "an alert")
    gateway.wait_idle()
    alerts = [alert for alert in receiver.alerts() if "credential" in json.dumps(alert)]
    assert len(alerts) == 1 and "could not be renewed" in json.dumps(alerts[0]), alerts
    shown = credential(gateway)
    assert shown["state"] == "failed" and shown["last_error"] and shown["failures"] == 1, shown
    assert_secret(gateway)
    assert all(secret not in json.dumps(alerts) for secret in SECRETS.values())


def test_a_refused_refresh_token_says_who_must_act(start, sim):
    receiver = start.receiver()
    gateway = start.gateway(init_for(sim.url), env={**SECRETS, "REFRESH": "expired-token",
                                                    "OPS": receiver.url + "/hook"})
    assert gateway.chat("m").status == 401
    failed = gateway.wait_log("credential not renewed")
    assert "refresh token" in failed["why"], failed
    alert = wait_until(receiver.alerts, "an alert")[0]
    assert "log in" in json.dumps(alert), alert


def test_a_token_endpoint_that_never_answers_holds_no_call_beyond_its_deadline(start, sim):
    gateway = start.gateway(init_for(sim.url, deadline=2), env={**SECRETS, "OPS": sim.url + "/hook"})
    sim.control("POST", "/sim/token?hang=1000")
    replies = many(gateway, 20)
    assert all(reply.status in (401, 504) and reply.seconds < 8 for reply in replies), replies
    assert sim.stats()["token_requests"] == 1
    gateway.wait_idle()


def test_the_renewal_survives_the_call_that_started_it(start, sim):
    gateway = start.gateway(init_for(sim.url), env={**SECRETS, "OPS": sim.url + "/hook"})
    sim.control("POST", "/sim/token?delay=1")
    starter = connect(gateway.address)
    starter.sendall(chat_bytes("m"))
    wait_until(lambda: sim.stats()["token_requests"] == 1, "the renewal has begun")
    replies = []
    follower = threading.Thread(target=lambda: replies.append(gateway.chat("m")))
    follower.start()
    wait_until(lambda: credential(gateway)["waiting"] == 2, "both wait for it")
    starter.close()
    wait_until(lambda: credential(gateway)["waiting"] == 1, "the one that left does not", 5)
    follower.join(20)
    assert replies[0].status == 200 and sim.stats()["token_requests"] == 1


def test_a_rotated_refresh_token_is_kept_for_the_next_start(start, sim, tmp_path):
    state = tmp_path / "state"
    env = {**SECRETS, "OPS": sim.url + "/hook"}
    folder = start.folder(init_for(sim.url))
    gateway = start.gateway(folder, "--state", state, env=env)
    assert gateway.chat("m").status == 200 and sim.stats()["renewals"] == 1
    gateway.stop()
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files and all(stat.S_IMODE(os.stat(path).st_mode) == 0o600 for path in files), files
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700

    # The first refresh token is outdated now; only the one that was kept will do.
    gateway = start.gateway(folder, "--state", state, env=env)
    sim.control("POST", "/sim/expire")
    reply = gateway.chat("m")
    assert reply.status == 200 and sim.stats()["renewals"] == 2, reply
    assert_secret(gateway)
