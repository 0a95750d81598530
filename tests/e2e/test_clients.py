"""Who may come in: clients with keys and limits, the guard against web pages where there are none, and which addresses
may be listened on.

Shows: every form in which the providers' SDKs send a key is taken, and no key reaches a provider, a log or an error;
401, 403 and 429 in the dialect of the path, with WWW-Authenticate, Retry-After and Proxy-Status; a client's place comes
back on every way a call can end; the file is taken over while calls run, a broken one is not; policies see the client's
name, and so do log and metrics; probes need no key. Web pages of other hosts are refused before anything is sent.
"""

import hashlib
import json
import os
import select
import signal
import subprocess
import threading

import pytest

import harness
from harness import (chain, chat_bytes, connect, failure, ok, raw, reset, run_parry, send, stream, delta, then_hang,
                     wait_until)

ALICE, BOB = "sk-parry-alice-0123456789", "sk-parry-bob-0123456789"
PROVIDER_KEY = "sk-provider-abcdefghij"
ENV = {"KEY": PROVIDER_KEY}

SEES_CLIENT = """
return policy {
  name = "sees_client",
  on_request = function(self, call)
    if call.model == "who" then return respond { body = { client = call.client or "nobody" } } end
  end,
}
"""


def digest(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def init_for(url, clients='clients { file = "clients.json" }', policies=None):
    return f"""
{clients}
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
provider "claude" {{ base_url = "{url}/v1/messages", dialect = "anthropic", auth = header("x-api-key", secret "KEY") }}
route "/v1/*" {{ to = "p", deadline = 30, chain = {policies or chain()} }}
route "/v1/messages*" {{ to = "claude", deadline = 30, chain = {policies or chain()} }}
"""


class Clients:
    """A folder whose init.lua declares clients, and their file."""

    def __init__(self, start, url, *clients, **more):
        self.folder = start.folder(init_for(url, **more))
        self.path = self.folder.path / "clients.json"
        self.write(*clients)

    def write(self, *clients):
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"clients": clients}))
        os.replace(new, self.path)


def client(name, key, **limits):
    return {"name": name, "key": digest(key), **limits}


def ask(gateway, key=ALICE, model="m", path="/v1/chat/completions", headers=None, **more):
    given = {"Authorization": f"Bearer {key}"} if key else {}
    return gateway.chat(model, headers={**given, **(headers or {})}, path=path, **more)


# --- Keys ---------------------------------------------------------------------------------------------------


FORMS = {
    "openai": lambda key: {"Authorization": f"Bearer {key}"},
    "openai, other case": lambda key: {"authorization": f"bearer  {key}"},
    "azure openai": lambda key: {"api-key": key},
    "anthropic": lambda key: {"X-Api-Key": key, "anthropic-version": "2023-06-01"},
    "anthropic with a token": lambda key: {"Authorization": f"Bearer {key}", "x-api-key": "of-something-else-0123"},
    "google": lambda key: {"x-goog-api-key": key},
}


@pytest.fixture(scope="module")
def provider(start_once):
    return start_once.provider(otherwise=ok())


@pytest.fixture(scope="module")
def gateway(start_once, provider):
    clients = Clients(start_once, provider.url, client("alice", ALICE), {"name": "bob", "keys": [BOB, digest("o" * 20)]},
                      client("gone", "sk-parry-gone-0123456789", enabled=False),
                      client("past", "sk-parry-past-0123456789", expires="2020-01-01"),
                      client("narrow", "sk-parry-narrow-0123456789", models=["small-*"], routes=["/v1/chat/*"]),
                      policies="{ use \"sees_client\", use \"retry\" }")
    clients.folder.write("sees_client.lua", SEES_CLIENT)
    made = start_once.gateway(clients.folder, env=ENV)
    made.clients = clients
    return made


@pytest.mark.parametrize("form", FORMS)
def test_every_sdks_form_of_a_key_is_taken_and_goes_no_further(gateway, provider, form):
    before = len(provider.asked)
    reply = gateway.chat("m", headers=FORMS[form](ALICE))
    assert reply.status == 200, reply
    asked = provider.asked[before]
    assert asked.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert ALICE not in str(asked.headers) and "of-something-else" not in str(asked.headers)
    assert "api-key" not in asked.headers and "x-goog-api-key" not in asked.headers
    line = gateway.wait_log("call", lambda entry: entry["call_id"] == reply.call_id)
    assert line["client"] == "alice"


def test_policies_see_whose_call_it_is(gateway):
    assert ask(gateway, BOB, "who").json() == {"client": "bob"}
    assert ask(gateway, "o" * 20, "who").json() == {"client": "bob"}, "the other of his keys"
    metrics = gateway.metrics()
    assert metrics['parry_client_calls_total{client="bob",outcome="ok"}'] >= 2


REFUSED = {
    "no key": ({}, 401, "missing_api_key", 'Bearer realm="parry"'),
    "an empty one": ({"Authorization": "Bearer "}, 401, "missing_api_key", 'Bearer realm="parry"'),
    "another scheme": ({"Authorization": f"Basic {ALICE}"}, 401, "missing_api_key", 'Bearer realm="parry"'),
    "a provider's key": ({"Authorization": f"Bearer {PROVIDER_KEY}"}, 401, "invalid_api_key",
                         'Bearer realm="parry", error="invalid_token"'),
    "what the file holds": ({"x-api-key": digest(ALICE)}, 401, "invalid_api_key",
                            'Bearer realm="parry", error="invalid_token"'),
    "a long one": ({"x-api-key": "k" * 60000}, 401, "invalid_api_key", 'Bearer realm="parry", error="invalid_token"'),
    "disabled": ({"x-api-key": "sk-parry-gone-0123456789"}, 401, "disabled_api_key",
                 'Bearer realm="parry", error="invalid_token"'),
    "expired": ({"x-api-key": "sk-parry-past-0123456789"}, 401, "expired_api_key",
                'Bearer realm="parry", error="invalid_token"'),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_without_a_good_key_nothing_is_sent(gateway, provider, name, path):
    headers, status, code, challenge = REFUSED[name]
    before = len(provider.asked)
    reply = gateway.chat("m", headers=headers, path=path)
    assert reply.status == status and reply.whole, reply
    assert reply.headers["www-authenticate"] == challenge
    assert reply.headers["proxy-status"] == f'parry; error=http_request_denied; details="{code}"'
    error = reply.json()["error"]
    if path == "/v1/messages":
        assert reply.json()["type"] == "error" and error["type"] == "authentication_error" and error["message"]
    else:
        assert error["type"] == "invalid_request_error" and error["code"] == code and error["message"]
    assert len(provider.asked) == before
    for value in headers.values():
        assert value.removeprefix("Bearer ") == "" or value not in reply.text


def test_a_connection_goes_on_after_a_refusal(gateway):
    first = chat_bytes("m", path="/v1/chat/completions")
    second = chat_bytes("m", headers={"Authorization": f"Bearer {ALICE}", "Connection": "close"})
    got = raw(gateway.address, first + second)
    assert got.startswith(b"HTTP/1.1 401 ") and b"HTTP/1.1 200 " in got, got


def test_probes_need_no_key(gateway):
    for path in ("/livez", "/readyz"):
        assert send(gateway.address, "GET", path).status == 200


@pytest.mark.parametrize("body, status", [
    ({"model": "small-1"}, 200), ({"model": "large"}, 403), ({}, 403), ("not json", 403),
    ({"model": "small-1", "Model": "large"}, 403), ({"model": "small-1", "models": ["large"]}, 200),
])
def test_a_client_keeps_to_its_models(gateway, provider, body, status):
    headers = {"Authorization": "Bearer sk-parry-narrow-0123456789"}
    if isinstance(body, str):
        body, headers = body.encode(), {**headers, "Content-Type": "text/plain"}
    before = len(provider.asked)
    reply = gateway.post("/v1/chat/completions", body, headers)
    assert reply.status == status, reply
    if status == 403:
        assert reply.json()["error"]["code"] == "model_not_allowed"
        assert "error=http_request_denied" in reply.headers["proxy-status"]
        assert len(provider.asked) == before


def test_a_client_keeps_to_its_routes(gateway):
    reply = ask(gateway, "sk-parry-narrow-0123456789", "small-1", path="/v1/embeddings")
    assert reply.status == 403 and reply.json()["error"]["code"] == "path_not_allowed", reply
    reply = ask(gateway, "sk-parry-narrow-0123456789", "small-1", path="/v1/messages")
    assert reply.status == 403 and reply.json()["error"]["type"] == "permission_error", reply


def test_refusals_are_counted_and_logged_without_the_key(gateway):
    wrong = "sk-parry-wrong-0123456789"
    start = len(gateway.lines)
    assert ask(gateway, wrong).status == 401
    gateway.wait_log("request refused", lambda entry: entry["reason"] == "invalid_api_key", start=start)
    assert gateway.metrics()['parry_client_refused_total{client="-",reason="invalid_api_key"}'] >= 1
    said = gateway.output + gateway.ask("GET", "/api/v1/status").text
    for key in (wrong, ALICE, BOB, digest(ALICE)):
        assert key not in said


# --- Limits -------------------------------------------------------------------------------------------------


def test_over_the_rate_is_429_with_retry_after(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE, rpm=6, burst=2), client("bob", BOB))
    gateway = start.gateway(clients.folder, env=ENV)
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 429]
    reply = ask(gateway, path="/v1/messages")
    assert reply.status == 429 and reply.json()["error"]["type"] == "rate_limit_error", reply
    assert 1 <= int(reply.headers["retry-after"]) <= 10
    reply = ask(gateway)
    assert reply.json()["error"]["code"] == "rate_limit_exceeded" and reply.json()["error"]["type"] == "rate_limit_error"
    assert ask(gateway, BOB).status == 200, "another client's limits are its own"
    assert len(provider.asked) == 3
    clients.write(client("alice", ALICE, rpm=6000, burst=2), client("bob", BOB))
    wait_until(lambda: ask(gateway).status == 200, "the new rate")


ENDINGS = {
    "answered": (ok(), lambda made: None, 200),
    "an error": (failure(404, code="model_not_found"), lambda made: None, 404),
    "reset while waiting": (then_hang(), reset, None),
    "left while streaming": (then_hang(stream(delta(content="a"), end=False)), lambda made: made.close(), None),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_place_comes_back_however_a_call_ends(start, name):
    step, leave, status = ENDINGS[name]
    provider = start.provider(step, otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE, concurrent=1))
    gateway = start.gateway(clients.folder, env=ENV)
    if status:
        assert ask(gateway).status == status
    else:
        made = connect(gateway.address)
        made.sendall(chat_bytes("m", headers={"Authorization": f"Bearer {ALICE}"}, stream=True))
        wait_until(lambda: len(provider.asked) == 1, "the call at the provider")
        reply = ask(gateway)
        assert reply.status == 429 and reply.json()["error"]["code"] == "too_many_concurrent_calls", reply
        assert reply.headers["retry-after"] == "1"
        leave(made)
    wait_until(lambda: ask(gateway).status == 200, "the place of the call that ended")


def test_a_place_comes_back_when_the_body_never_ends(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE, concurrent=1))
    gateway = start.gateway(clients.folder, env=ENV)
    half = chat_bytes("m", headers={"Authorization": f"Bearer {ALICE}"})[:-5]
    made = connect(gateway.address)
    made.sendall(half)

    def holds_the_place():
        nonlocal made
        if ask(gateway).status == 429:
            return True
        if select.select([made], [], [], 0)[0]:  # the question was first, and the half request refused: once more
            made.close()
            made = connect(gateway.address)
            made.sendall(half)
        return False

    wait_until(holds_the_place, "the half request holds the place")
    made.close()
    wait_until(lambda: ask(gateway).status == 200, "the place of the half request")
    too_large = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
                 "Content-Length: 99999999999\r\n\r\n").encode()
    assert raw(gateway.address, too_large).startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: ask(gateway).status == 200, "the place of the request that was too large")


def test_concurrency_is_exact_under_load(start):
    sim = start.sim()
    clients = Clients(start, sim.url, client("alice", ALICE, concurrent=4))
    gateway = start.gateway(clients.folder, env=ENV)
    statuses = []

    def one():
        statuses.append(ask(gateway, headers={"x-sim-fault": "delay=0.2"}).status)

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 4, statuses
    gateway.wait_idle()
    assert ask(gateway).status == 200


# --- The file -----------------------------------------------------------------------------------------------


def test_the_file_is_taken_over_while_it_serves_and_a_broken_one_is_not(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE))
    gateway = start.gateway(clients.folder, env=ENV)
    assert (ask(gateway).status, ask(gateway, BOB).status) == (200, 401)
    clients.write(client("alice", ALICE), client("bob", BOB))
    wait_until(lambda: ask(gateway, BOB).status == 200, "bob's key")
    good = clients.path.read_text()
    clients.path.write_text(good.replace('"name": "bob"', '"name": "alice"'))
    found = gateway.wait_log("clients file refused, the clients stay as they were")
    assert found["finding"] == 'clients.json: two clients are named "alice"'
    assert gateway.status()["clients"]["error"] == found["finding"]
    shown = gateway.command("status").stdout
    assert "clients      2 in clients.json" in shown and "refused since: clients.json: two clients" in shown, shown
    assert gateway.metrics()["parry_clients_last_reload_successful"] == 0
    assert (ask(gateway).status, ask(gateway, BOB).status) == (200, 200)
    clients.path.unlink()
    gateway.wait_log("clients file refused, the clients stay as they were", lambda e: "No such file" in e["finding"])
    assert ask(gateway, BOB).status == 200
    clients.write(client("alice", ALICE))
    wait_until(lambda: ask(gateway, BOB).status == 401, "bob's key taken back")
    assert gateway.status()["clients"]["error"] is None
    assert gateway.metrics()["parry_clients_last_reload_successful"] == 1


def test_sighup_looks_at_once(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE))
    gateway = start.gateway(clients.folder, env=ENV)
    clients.write(client("bob", BOB))
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: ask(gateway, BOB).status == 200, "bob's key")
    assert ask(gateway).status == 401


def test_clients_come_and_go_with_the_policies(start):
    provider = start.provider(otherwise=ok())
    folder = start.folder(init_for(provider.url, clients=""))
    gateway = start.gateway(folder, env=ENV)
    assert ask(gateway, None).status == 200
    folder.write("init.lua", init_for(provider.url))
    refused = gateway.command("reload", "--wait")
    assert refused.returncode == 1 and "clients.json: cannot be read" in refused.stdout + refused.stderr, refused
    assert ask(gateway, None).status == 200, "nothing changed"
    folder.write("clients.json", json.dumps({"clients": [client("alice", ALICE)]}))
    assert gateway.command("reload", "--wait").returncode == 0
    assert (ask(gateway, None).status, ask(gateway).status) == (401, 200)
    folder.write("other.json", json.dumps({"clients": [client("bob", BOB)]}))
    folder.write("init.lua", init_for(provider.url, clients='clients { file = "other.json" }'))
    assert gateway.command("reload", "--wait").returncode == 0
    assert (ask(gateway).status, ask(gateway, BOB).status) == (401, 200)
    folder.write("init.lua", init_for(provider.url, clients=""))
    assert gateway.command("reload", "--wait").returncode == 0
    assert ask(gateway, None).status == 200


# --- check and serve ----------------------------------------------------------------------------------------


def test_check_reads_the_file_too(start):
    folder = start.folder(init_for("http://127.0.0.1:1"))
    done = run_parry("check", folder.path, env=ENV)
    assert done.returncode == 1 and "clients.json: cannot be read: No such file" in done.stdout, done
    folder.write("clients.json", '{"clients": [\n{"name": "a", "key": "short"}]}')
    done = run_parry("check", folder.path, env=ENV)
    assert done.returncode == 1 and 'clients.json:2: client "a": a key must be' in done.stdout, done
    assert "short" not in done.stdout
    folder.write("clients.json", json.dumps({"clients": [{"name": "a", "key": ALICE}]}))
    os.chmod(folder.path / "clients.json", 0o644)
    done = run_parry("check", folder.path, env=ENV)
    assert done.returncode == 0 and "1 key is written out, and other users" in done.stdout, done
    assert ALICE not in done.stdout
    folder.replace("init.lua", 'auth = bearer(secret "KEY")', "auth = passthrough()")
    done = run_parry("check", folder.path, env=ENV)
    assert done.returncode == 1 and "passthrough() and clients" in done.stdout, done


def test_beyond_loopback_only_with_clients(start, tmp_path):
    folder = start.folder(init_for("http://127.0.0.1:1", clients=""))
    options = ("--policies", folder.path, "--listen", "0.0.0.0:0", "--admin", f"unix:{tmp_path}/a.sock")
    done = run_parry("serve", *options, env=ENV)
    assert done.returncode == 78 and "--listen 0.0.0.0:0 is not a loopback address" in done.stderr, done
    assert "clients { file" in done.stderr and "parry client add" in done.stderr
    folder.write("init.lua", init_for("http://127.0.0.1:1"))
    done = run_parry("serve", *options, env=ENV)
    assert done.returncode == 78 and "clients.json: cannot be read" in done.stderr, done


@pytest.mark.skipif(subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0,
                    reason="no network namespace of our own, and no test listens to the network")
def test_beyond_loopback_policies_without_clients_are_refused(start, tmp_path, monkeypatch):
    apart = tmp_path / "parry"  # the same program where there is no network; its admin socket is a file
    apart.write_text(f'#!/bin/sh\nexec unshare -rn "{harness.PARRY}" "$@"\n')
    apart.chmod(0o755)
    clients = Clients(start, "http://127.0.0.1:1", client("alice", ALICE))
    with monkeypatch.context() as patch:
        patch.setattr(harness, "PARRY", str(apart))
        gateway = start.gateway(clients.folder, "--listen", "0.0.0.0:0", env=ENV)
    assert gateway.address.startswith("0.0.0.0:")
    clients.folder.write("init.lua", init_for("http://127.0.0.1:1", clients=""))
    refused = gateway.command("reload", "--wait")
    assert refused.returncode == 1 and "is not a loopback address" in refused.stdout + refused.stderr, refused
    assert gateway.status()["clients"]["declared"] is True


# --- parry client -------------------------------------------------------------------------------------------


def test_a_key_made_by_the_command_is_taken_within_a_moment(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE))
    gateway = start.gateway(clients.folder, env=ENV)
    os.chmod(clients.path, 0o640)
    before = clients.path.read_text()
    made = run_parry("client", "add", "carol", "--rpm", "100", "--model", "m*", "--policies", clients.folder.path, env=ENV)
    key = made.stdout.strip()
    assert made.returncode == 0 and key.startswith("sk-parry-") and len(key) == 52 and key not in made.stderr, made
    assert key not in clients.path.read_text() and digest(key) in clients.path.read_text()
    assert clients.path.stat().st_mode & 0o777 == 0o640
    wait_until(lambda: ask(gateway, key).status == 200, "carol's key")
    assert ask(gateway, key, "other").status == 403
    shown = run_parry("client", "list", "--file", clients.path)
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["alice", "good"], ["carol", "good", "rpm", "100", "models", "m*"]], shown
    listed = json.loads(run_parry("client", "list", "--json", "--file", clients.path).stdout)
    assert [entry["name"] for entry in listed["clients"]] == ["alice", "carol"]
    assert run_parry("client", "remove", "carol", "--file", clients.path).returncode == 0
    wait_until(lambda: ask(gateway, key).status == 401, "carol's key taken back")
    assert json.loads(clients.path.read_text()) == json.loads(before)


MISTAKES = {
    "nothing": ((), 2, "say add NAME, list, or remove NAME"),
    "no name": (("add",), 2, "which client?"),
    "a bad name": (("add", "-"), 2, "the name may hold"),
    "a name there is": (("add", "alice"), 1, 'two clients are named "alice"'),
    "a bad date": (("add", "bob", "--expires", "soon"), 1, "expires must be a date"),
    "limits of nobody": (("list", "--rpm", "1"), 2, "limits are for add"),
    "nobody": (("remove", "bob"), 1, "has no client of that name"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_commands_mistakes_change_nothing(start, name):
    clients = Clients(start, "http://127.0.0.1:1", client("alice", ALICE))
    before = clients.path.read_bytes()
    arguments, code, said = MISTAKES[name]
    done = run_parry("client", *arguments, "--policies", clients.folder.path, env=ENV)
    assert done.returncode == code and said in done.stderr and not done.stdout, done
    assert clients.path.read_bytes() == before
    assert sorted(path.name for path in clients.folder.path.glob("clients*")) == ["clients.json"], "nothing left aside"


def test_the_command_says_what_the_policies_lack(start):
    folder = start.folder(init_for("http://127.0.0.1:1", clients=""))
    done = run_parry("client", "add", "bob", "--policies", folder.path, env=ENV)
    assert done.returncode == 1 and 'clients { file = "clients.json" }' in done.stderr and not done.stdout, done
    folder.write("init.lua", "nonsense")
    done = run_parry("client", "add", "bob", "--policies", folder.path, env=ENV)
    assert done.returncode == 1 and f"{folder.path}/init.lua:1: " in done.stderr and not done.stdout, done


def test_a_list_of_nobody_says_so(tmp_path):
    path = tmp_path / "clients.json"
    path.write_text('{ "clients": [] }')
    done = run_parry("client", "list", "--file", path)
    assert done.returncode == 0 and "no clients in" in done.stderr and not done.stdout, done
    assert json.loads(run_parry("client", "list", "--json", "--file", path).stdout) == {"clients": []}


def test_a_file_swapped_as_kubernetes_does_is_seen(start):
    provider = start.provider(otherwise=ok())
    clients = Clients(start, provider.url, client("alice", ALICE))
    for number, key in ((1, ALICE), (2, BOB)):
        (clients.folder.path / f"..{number}").mkdir()
        (clients.folder.path / f"..{number}" / "clients.json").write_text(json.dumps({"clients": [client("a", key)]}))
    os.symlink("..1", clients.folder.path / "..data")
    clients.path.unlink()
    os.symlink("..data/clients.json", clients.path)
    gateway = start.gateway(clients.folder, env=ENV)
    assert ask(gateway).status == 200
    os.symlink("..2", clients.folder.path / "..new")
    os.replace(clients.folder.path / "..new", clients.folder.path / "..data")
    wait_until(lambda: ask(gateway, BOB).status == 200, "the other file")
    assert ask(gateway).status == 401


# --- Web pages ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_gateway(start_once, provider):
    return start_once.gateway(init_for(provider.url, clients=""), "--allow-host", "Parry.internal", "--allow-host",
                              "*.pages.example", env=ENV)


GUARDED = {
    "a program": ({}, 200),
    "by name": ({"Host": "localhost:8420"}, 200),
    "by address": ({"Host": "127.0.0.1:8420"}, 200),
    "by address 6": ({"Host": "[::1]:8420"}, 200),
    "an allowed name": ({"Host": "parry.INTERNAL:8420"}, 200),
    "a page of this machine": ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}, 200),
    "a page of this machine by address": ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "cross-site"}, 200),
    "an allowed page": ({"Origin": "https://chat.pages.example", "Sec-Fetch-Site": "cross-site"}, 200),
    "a rebound name": ({"Host": "evil.example:8420"}, "host_not_allowed"),
    "a rebound name like ours": ({"Host": "localhost.evil.example"}, "host_not_allowed"),
    "an address of the network": ({"Host": "192.168.1.7:8420"}, "host_not_allowed"),
    "the other loopback": ({"Host": "0.0.0.0:8420"}, "host_not_allowed"),
    "a page": ({"Origin": "https://evil.example"}, "origin_not_allowed"),
    "a page like ours": ({"Origin": "http://localhost.evil.example"}, "origin_not_allowed"),
    "a page with a name in the port's place": ({"Origin": "http://evil.example:localhost"}, "origin_not_allowed"),
    "a page with a user": ({"Origin": "http://localhost@evil.example"}, "origin_not_allowed"),
    "a file or sandbox": ({"Origin": "null"}, "origin_not_allowed"),
    "two origins": ({"Origin": "http://localhost https://evil.example"}, "origin_not_allowed"),
    "an extension": ({"Origin": "chrome-extension://abcdef"}, "origin_not_allowed"),
    "an image on a page": ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "origin_not_allowed"),
}


@pytest.mark.parametrize("name", GUARDED)
def test_web_pages_cannot_use_a_gateway_without_keys(open_gateway, provider, name):
    headers, expected = GUARDED[name]
    before = len(provider.asked)
    reply = open_gateway.chat("m", headers=headers)
    if expected == 200:
        assert reply.status == 200, reply
        return
    assert reply.status == 403 and reply.json()["error"]["code"] == expected, reply
    assert "--allow-host" in reply.json()["error"]["message"]
    assert len(provider.asked) == before
    assert "access-control-allow-origin" not in reply.headers
    assert send(open_gateway.address, "GET", "/livez", headers=headers).status == 200, "probes are harmless"


def test_with_keys_pages_do_not_matter(gateway):
    assert ask(gateway, headers={"Host": "parry:8420", "Origin": "https://chat.example"}).status == 200


def test_a_preflight_of_another_page_is_refused(open_gateway, provider):
    before = len(provider.asked)
    reply = send(open_gateway.address, "OPTIONS", "/v1/chat/completions",
                 headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert reply.status == 403 and len(provider.asked) == before


def test_the_guard_can_be_taken_away(start, provider):
    gateway = start.gateway(init_for(provider.url, clients=""), "--allow-host", "*", env=ENV)
    assert gateway.chat("m", headers={"Host": "any.example", "Origin": "null"}).status == 200
