"""The commands as scripts and people use them: data on stdout, words on stderr, exit codes, file:line, a next step.

Shows: help and usage errors of every command, with the option and what it takes; check, test, reload and status, plain
and JSON; what `serve` and `sim` refuse at their start (78) and how an unreachable parry is told (3); an admin listener
on TCP; and `parry classify` over a table of real providers' errors.
"""

import base64
import json
import socket

import pytest

from harness import Folder, Process, chain, raw, run_parry, send

COMMANDS = ["serve", "demo", "check", "test", "reload", "status", "health", "client", "classify", "sim", "version"]

INIT = f"""
provider "p" {{ base_url = "http://127.0.0.1:9/v1", dialect = "openai", auth = bearer(secret "KEY") }}
route "/v1/*" {{ to = "p", chain = {chain()} }}
"""
ENV = {"KEY": "sk-cli-0123456789"}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "policies", INIT)


# --- Help and mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_names_its_mistakes(command):
    shown = run_parry(command, "--help")
    assert shown.returncode == 0 and shown.stdout.startswith(f"usage: parry {command}") and not shown.stderr
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())
    wrong = run_parry(command, "--no-such-option")
    assert wrong.returncode == 2 and not wrong.stdout
    assert "--no-such-option" in wrong.stderr and f"parry {command} --help" in wrong.stderr
    assert run_parry("help", command).stdout == run_parry(command, "--help").stdout


def test_the_program_itself():
    shown = run_parry("--help")
    assert shown.returncode == 0 and all(command in shown.stdout for command in COMMANDS)
    assert run_parry().returncode == 2
    near = run_parry("statsu")
    assert near.returncode == 2 and "parry status" in near.stderr
    version = run_parry("version").stdout.split()
    assert version[0] == "parry" and json.loads(run_parry("version", "--json").stdout) == {"version": version[1]}
    assert "--listen" in run_parry("serve", "--lsten", "x").stderr
    assert run_parry("serve", "--listen").returncode == 2
    assert run_parry("sim", "--fault", "m=code=999").returncode == 2


@pytest.mark.parametrize("command,arguments,words", [
    ("sim", ["--listen", "foo"], ["--listen foo", "ADDRESS:PORT"]),
    ("sim", ["--listen", ":0"], ["--listen :0", "ADDRESS:PORT"]),
    ("sim", ["--fault", "m"], ["--fault", "'m'", "MODEL=SPEC"]),
    ("sim", ["--fault", "m=cde=500"], ["--fault", "'m=cde=500'", "did you mean code", "retry-after= retry-after-ms="]),
    ("sim", ["--fault", "m=code=999"], ["'code=999' is no code", "400...599", "html-502"]),
    ("sim", ["--fault", "m=code=hangg"], ["did you mean hang;"]),
    ("sim", ["--fault", "m=503;times=x"], ["'times=x' cannot be used", "a whole number, 0 or more"]),
    ("test", ["--run", "("], ["--run ("]),
    ("serve", ["--log-format", "x"], ["--log-format", "auto, text or json"]),
])
def test_usage_errors_name_the_option_and_say_what_is_wanted(command, arguments, words, tmp_path):
    wrong = run_parry(command, *arguments, cwd=tmp_path)
    said = wrong.stderr
    assert wrong.returncode == 2 and not wrong.stdout, wrong
    assert all(word in said for word in words) and f"parry {command} --help" in said, wrong.stderr


def test_a_simulator_is_not_for_other_machines_unless_told(tmp_path):
    for address in ("0.0.0.0:0", "[::]:0"):
        refused = run_parry("sim", "--listen", address)
        assert refused.returncode == 78 and address in refused.stderr and "--allow-remote" in refused.stderr, refused
    allowed = Process("sim", "--listen", f"unix:{tmp_path}/sim.sock", "--allow-remote")
    allowed.wait_line(lambda line: "ready on" in line)
    allowed.stop()


# --- check and test ------------------------------------------------------------------------------------------


def test_check_is_silent_about_what_is_good(folder):
    good = run_parry("check", folder.path, env=ENV)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    report = json.loads(run_parry("check", folder.path, "--json", env=ENV).stdout)
    policies = [path for path in folder.path.glob("*.lua") if path.name != "init.lua"]
    assert report["ok"] and report["policies"] == len(policies) >= 5 and report["findings"] == []
    policies = [file for file in folder.path.glob("*.lua") if file.name != "init.lua" and "_test" not in file.name]
    assert report["ok"] and report["policies"] == len(policies) and report["findings"] == []
    assert [(secret["name"], secret["found"]) for secret in report["secrets"]] == [("KEY", True)], report
    verbose = run_parry("check", folder.path, "-v", env=ENV)
    assert "KEY" in verbose.stdout and ENV["KEY"] not in verbose.stdout + verbose.stderr


def test_check_warns_of_a_missing_secret_and_strict_counts_it(folder):
    lax = run_parry("check", folder.path)
    assert lax.returncode == 0 and "init.lua:2" in lax.stdout + lax.stderr and "KEY" in lax.stdout + lax.stderr
    strict = run_parry("check", "-S", folder.path)
    assert strict.returncode == 1 and "1 warning, which --strict does not let pass" in strict.stdout, strict
    assert json.loads(run_parry("check", "-S", "--json", folder.path).stdout)["ok"] is False


def test_check_says_what_a_missing_secret_means(folder):
    folder.write("init.lua", folder.read("init.lua") + 'sink "ops" { webhook = secret "OPS" }\n')
    lines = run_parry("check", folder.path).stdout.splitlines()
    assert any('"KEY"' in line and "calls that need it will fail as auth" in line for line in lines), lines
    assert any('"OPS"' in line and "alerts to its sink are not delivered" in line and "auth" not in line
               for line in lines), lines


@pytest.mark.parametrize("file,old,new,where,words", [
    ("init.lua", "max_attempts = 4", "max_atempts = 4", "init.lua:6", ["max_attempts"]),
    ("init.lua", "max_attempts = 4", "max_attempts = 0", "init.lua:6", ["1", "16"]),
    ("init.lua", 'use "retry"', 'use "retyr"', "init.lua:", ["retry"]),
    ("init.lua", 'to = "p"', 'to = "q"', "init.lua:3", ["q"]),
    ("init.lua", 'dialect = "openai"', 'dialect = "openia"', "init.lua:2", ["openai"]),
    ("init.lua", "base_url", "bse_url", "init.lua:2", ["base_url"]),
    ("init.lua", "http://127.0.0.1:9/v1", "127.0.0.1:9/v1", "init.lua:2", ["http"]),
    ("init.lua", 'route "/v1/*"', 'route "/v1/*" { to = "p", chain = {} }\nroute "/v1/*"', "init.lua:", ["/v1/*"]),
    ("retry.lua", "on_error =", "on_eror =", "retry.lua:", ["on_error"]),
    ("retry.lua", "return policy {", "return policy {{", "retry.lua:", []),
])
def test_check_names_file_line_cause_and_the_word_that_was_meant(folder, file, old, new, where, words):
    folder.replace(file, old, new)
    found = run_parry("check", folder.path, env=ENV)
    said = found.stdout + found.stderr
    assert found.returncode == 1 and where in said, said
    assert all(word in said for word in words), said
    report = json.loads(run_parry("check", "--json", folder.path, env=ENV).stdout)
    assert not report["ok"] and any(where in f["where"] for f in report["findings"]), report


def test_check_of_what_is_not_there(tmp_path):
    missing = run_parry("check", tmp_path / "nowhere")
    assert missing.returncode == 1 and "nowhere" in missing.stdout + missing.stderr
    (tmp_path / "empty").mkdir()
    empty = run_parry("check", tmp_path / "empty")
    assert empty.returncode == 1 and "init.lua" in empty.stdout + empty.stderr


def test_the_policies_own_tests(tmp_path):
    folder = Folder(tmp_path / "policies", INIT, tests=True)
    run = run_parry("test", folder.path)
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    assert lines[-1].split()[-1] == "tests" and all(line.startswith("PASS ") for line in lines[:-1]), lines[-5:]
    passed, total = map(int, lines[-1].split()[0].split("/"))
    assert passed == total == len(lines) - 1 > 20
    some = run_parry("test", "-r", "[Rr]etry-After", folder.path)
    assert some.returncode == 0 and 0 < len(some.stdout.splitlines()) - 1 < total
    assert all("etry-After" in line for line in some.stdout.splitlines()[:-1])
    folder.write("bad_test.lua", 'test("one is two", function(t)\n  t:eq(1, 2)\nend)\n'
                 'test("never ends", function(t)\n  while true do end\nend)\n')
    bad = run_parry("test", "--json", "--run", "one is two|never ends", folder.path)
    report = json.loads(bad.stdout)
    assert bad.returncode == 1 and report["failed"] == 2 and not report["ok"]
    by_name = {test["name"]: test for test in report["tests"]}
    assert by_name["one is two"]["message"].startswith("bad_test.lua:2: "), by_name
    assert "bad_test.lua:5" in by_name["never ends"]["message"], by_name
    assert run_parry("test", "--run", "(", folder.path).returncode == 2


def test_a_test_run_that_shows_nothing_is_no_success(tmp_path):
    folder = Folder(tmp_path / "policies", INIT)
    none = run_parry("test", folder.path)
    assert none.returncode == 0 and none.stdout == "0/0 tests\n" and "no tests in" in none.stderr, none
    folder.write("some_test.lua", 'test("nothing said", function(t) end)\ntest("two", function(t) t:eq(2, 2) end)\n')
    nobody = run_parry("test", "-r", "nomatch", folder.path)
    assert nobody.returncode == 1 and "'nomatch'" in nobody.stderr, nobody
    assert run_parry("test", "-r", "nomatch", "--json", folder.path).returncode == 1
    silent = run_parry("test", folder.path)
    assert silent.returncode == 1 and "some_test.lua:1: made no assertion" in silent.stdout, silent
    assert run_parry("test", "-r", "two", folder.path).returncode == 0


def test_a_policy_that_faults_in_its_tests_is_told_before_what_failed_because_of_it(tmp_path):
    folder = Folder(tmp_path / "policies", INIT, tests=True)
    folder.replace("retry.lua", "on_error = function(self, call, err)",
                   "on_error = function(self, call, err)\n    self.nothing.at_all = 1")
    line = folder.read("retry.lua").split("self.nothing")[0].count("\n") + 1
    fault = f"retry.lua:{line}: "
    checked = run_parry("check", folder.path, env=ENV)
    first = checked.stdout.splitlines()[0]
    assert checked.returncode == 1 and f"{fault}fault: " in first and "nothing" in first, checked.stdout[:600]
    assert checked.stdout.count(fault) == 1
    tested = run_parry("test", "-q", folder.path)
    lines = tested.stdout.splitlines()
    assert tested.returncode == 1 and lines[0].startswith("FAIL "), lines[:5]
    assert lines[1].startswith(f"     fault: {fault}") and "_test.lua:" in lines[2], lines[:5]
    assert sum("     fault: " in one for one in lines) == 1 < sum("the fault above, " in one for one in lines)
    report = json.loads(run_parry("test", "--json", folder.path).stdout)
    assert any(test["fault"].startswith(fault) for test in report["tests"])


# --- serve, status, reload --------------------------------------------------------------------------------------


def test_serve_refuses_what_it_cannot_answer_for(folder, tmp_path):
    def serve(*arguments, **options):
        return run_parry("serve", "--policies", folder.path, *arguments, timeout=30, **options)

    unix = ("--admin", f"unix:{tmp_path}/a.sock")
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0"):
        refused = serve("--listen", address, *unix)
        assert refused.returncode == 78 and address in refused.stderr, refused
    for address in ("foo", ":0", "127.0.0.1", "[::1]", "unix:"):
        refused = serve("--listen", address, *unix)
        assert refused.returncode == 78 and f"--listen '{address}' is not an address" in refused.stderr, refused
        assert "ADDRESS:PORT" in refused.stderr and "loopback" not in refused.stderr, refused
    refused = serve("--listen", "127.0.0.1:0", "--admin", "foo")
    assert refused.returncode == 78 and "--admin 'foo' is not an address" in refused.stderr, refused
    refused = serve("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert refused.returncode == 78 and "token" in refused.stderr, refused
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        busy = serve("--listen", address, *unix)
        assert busy.returncode == 1 and address in busy.stderr, busy
    folder.replace("init.lua", "max_attempts = 4", "max_atempts = 4")
    refused = serve("--listen", "127.0.0.1:0", *unix)
    assert refused.returncode == 78 and "init.lua:6" in refused.stderr and "parry check" in refused.stderr, refused
    assert serve("--workers", "x").returncode == 2
    assert serve("--workers", "0").returncode == 2
    assert serve("--log-level", "loud").returncode == 2


def test_an_unreachable_parry_is_exit_3(tmp_path):
    for arguments in (("status",), ("reload",), ("status", "--json")):
        done = run_parry(*arguments, "--admin", f"unix:{tmp_path}/nobody.sock")
        assert done.returncode == 3 and "parry serve" in done.stderr and not done.stdout, done
    assert run_parry("status", env={"PARRY_ADMIN": f"unix:{tmp_path}/nobody.sock"}).returncode == 3


def test_status_and_reload(start):
    gateway = start.gateway(INIT, env=ENV)
    text = gateway.command("status")
    assert text.returncode == 0 and gateway.address in text.stdout and str(gateway.process.pid) in text.stdout
    for flags in (("--json",), ("-o", "json")):
        status = json.loads(gateway.command("status", *flags).stdout)
        assert status["ready"] and status["calls_open"] == 0
    assert run_parry("status", env={"PARRY_ADMIN": gateway.admin}).returncode == 0
    unchanged = gateway.command("reload", "--json")
    assert unchanged.returncode == 0 and json.loads(unchanged.stdout)["result"] == "unchanged"
    gateway.folder.write("retry.lua", "no Lua\n")
    refused = gateway.command("reload", "--wait")
    assert refused.returncode == 1 and "retry.lua:1" in refused.stdout + refused.stderr
    second = run_parry("serve", "--policies", gateway.folder.path, "--listen", "127.0.0.1:0", "--admin", gateway.admin)
    assert second.returncode != 0, "a live socket is not taken from its owner"
    assert gateway.status()["ready"]


def test_an_admin_listener_on_tcp_wants_its_token(start, tmp_path):
    token = "admin-token-0123456789"
    file = tmp_path / "token"
    file.write_text(token + "\n")
    folder = start.folder(INIT)
    process = Process("serve", "--policies", folder.path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                      "--admin-token-file", file, "--log-format", "json", env=ENV)
    address = json.loads(process.wait_line(lambda line: '"ready"' in line))["admin"].removeprefix("http://")
    assert send(address, "GET", "/livez").status == 200
    assert send(address, "GET", "/metrics").status == 401
    assert send(address, "GET", "/api/v1/status", headers={"authorization": "Bearer wrong"}).status == 401
    right = {"authorization": f"Bearer {token}"}
    assert send(address, "GET", "/api/v1/status", headers=right).status == 200
    assert send(address, "GET", "/api/v1/status", headers={**right, "origin": "http://evil.example"}).status == 403
    rebound = raw(address, f"GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {token}\r\n"
                           "Connection: close\r\n\r\n".encode())
    assert b" 200 " not in rebound.split(b"\r\n")[0], rebound
    shown = run_parry("status", "--admin", address, env={"PARRY_ADMIN_TOKEN": token})
    assert shown.returncode == 0, shown
    assert run_parry("status", "--admin", address).returncode == 3
    process.stop()
    assert token not in process.output


# --- classify --------------------------------------------------------------------------------------------------


def kimi(code, status=200):
    return ("kimi", status, {"errcode": code, "errmsg": "text", "data": None})


def openai(status, kind=None, code=None, message="text"):
    return ("openai", status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic(status, kind, message="text"):
    return ("anthropic", status, {"type": "error", "error": {"type": kind, "message": message}})


# (dialect, status, body), category, origin, retryable, fallback, refresh_token
TABLE = [
    # KIMI, in a 200
    (kimi(-1000), "server", "server", True, True, False),
    (kimi(-1001), "invalid_request", "client", False, False, False),
    (kimi(-1002), "not_found", "client", False, True, False),
    (kimi(-1050), "server", "server", True, True, False),
    (kimi(-2000), "invalid_request", "client", False, False, False),
    (kimi(-2001), "server", "server", True, True, False),
    (kimi(-2002), "auth", "client", False, False, True),
    (kimi(-2003), "invalid_request", "client", False, False, False),
    (kimi(-2004), "payload_too_large", "client", False, False, False),
    (kimi(-2005), "conflict", "client", True, False, False),
    (kimi(-2006), "billing", "billing", False, True, False),
    # and with statuses of their own
    (kimi(-2002, 401), "auth", "client", False, False, True),
    (kimi(-1002, 404), "not_found", "client", False, True, False),
    (kimi(-2004, 413), "payload_too_large", "client", False, False, False),
    (kimi(-2005, 429), "conflict", "client", True, False, False),
    (kimi(0), "none", None, False, False, False),
    # HTTP alone
    (("openai", 400, b""), "invalid_request", "client", False, False, False),
    (("openai", 401, b""), "auth", "client", False, False, True),
    (("openai", 402, b""), "billing", "billing", False, True, False),
    (("openai", 403, b""), "permission", "client", False, True, False),
    (("openai", 404, b""), "not_found", "client", False, True, False),
    (("openai", 408, b""), "timeout", "server", True, True, False),
    (("openai", 409, b""), "conflict", "client", True, False, False),
    (("openai", 413, b""), "payload_too_large", "client", False, False, False),
    (("openai", 429, b""), "rate_limit", "client", True, True, False),
    (("openai", 500, b""), "server", "server", True, True, False),
    (("openai", 502, b"<html><title>502 Bad Gateway</title></html>"), "server", "server", True, True, False),
    (("openai", 503, b"upstream connect error"), "overloaded", "server", True, True, False),
    (("openai", 504, b""), "timeout", "server", True, True, False),
    (("openai", 529, b""), "overloaded", "server", True, True, False),
    (("generic", 503, b""), "overloaded", "server", True, True, False),
    (("no-such-dialect", 429, b""), "rate_limit", "client", True, True, False),
    (("openai", 200, {"choices": []}), "none", None, False, False, False),
    # OpenAI and Token360
    (openai(401, "invalid_request_error", "invalid_api_key"), "auth", "client", False, False, True),
    (openai(400, "invalid_request_error"), "invalid_request", "client", False, False, False),
    (openai(404, "not_found_error"), "not_found", "client", False, True, False),
    (openai(404, "invalid_request_error", "model_not_found"), "not_found", "client", False, True, False),
    (openai(403, "api_key_frozen"), "permission", "client", False, True, False),
    (openai(403, "model_access_denied"), "permission", "client", False, True, False),
    (openai(429, "rate_limit_error"), "rate_limit", "client", True, True, False),
    (openai(402, "insufficient_balance"), "billing", "billing", False, True, False),
    (openai(429, "insufficient_quota", "insufficient_quota"), "billing", "billing", False, True, False),
    (openai(500, "api_error"), "server", "server", True, True, False),
    (openai(503, "api_error"), "overloaded", "server", True, True, False),
    (openai(400, "invalid_request_error", "context_length_exceeded"), "context_length", "client", False, True, False),
    (openai(400, "invalid_request_error", "content_policy_violation"), "content_policy", "client", False, True, False),
    (openai(200, "server_error", None), "server", "server", True, True, False),
    (openai(429, "engine_overloaded_error"), "overloaded", "server", True, True, False),
    # Anthropic
    (anthropic(400, "invalid_request_error"), "invalid_request", "client", False, False, False),
    (anthropic(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "context_length",
     "client", False, True, False),
    (anthropic(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."), "billing",
     "billing", False, True, False),
    (anthropic(401, "authentication_error"), "auth", "client", False, False, True),
    (anthropic(403, "permission_error"), "permission", "client", False, True, False),
    (anthropic(404, "not_found_error"), "not_found", "client", False, True, False),
    (anthropic(413, "request_too_large"), "payload_too_large", "client", False, False, False),
    (anthropic(429, "rate_limit_error"), "rate_limit", "client", True, True, False),
    (anthropic(500, "api_error"), "server", "server", True, True, False),
    (anthropic(529, "overloaded_error"), "overloaded", "server", True, True, False),
    (anthropic(200, "overloaded_error"), "overloaded", "server", True, True, False),
]


def classify(lines, *arguments):
    text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    done = run_parry("classify", *arguments, input=text)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


FIELDS = {"id", "category", "origin", "retryable", "retry_after", "refresh_token", "fallback", "code", "message"}


def test_classify_knows_the_providers_errors():
    lines = []
    for number, ((dialect, status, body), *_) in enumerate(TABLE):
        line = {"id": number, "dialect": dialect, "http_status": status,
                "headers": {"content-type": "application/json"}}
        if isinstance(body, bytes):
            line["body_base64"] = base64.b64encode(body).decode()
        else:
            line["body"] = json.dumps(body)
        lines.append(line)
    done, results = classify(lines)
    assert done.returncode == 0 and len(results) == len(TABLE), done
    wrong = []
    for (asked, *expected), got in zip(TABLE, results):
        assert set(got) == FIELDS, got
        found = [got[field] for field in ("category", "origin", "retryable", "fallback", "refresh_token")]
        if found != expected:
            wrong.append((asked, found, expected))
    assert not wrong, "\n".join(map(str, wrong))
    assert [got["id"] for got in results] == list(range(len(TABLE)))
    assert results[0]["code"] == "-1000" and results[0]["message"] == "text"


def test_classify_transport_failures_have_no_status():
    lines = [{"id": "dns", "dialect": "openai", "http_status": None, "curl_code": 6, "headers": {}, "body": ""},
             {"id": "refused", "dialect": "openai", "http_status": None, "curl_code": 7, "headers": {}, "body": ""},
             {"id": "time", "dialect": "openai", "http_status": None, "curl_code": 28, "headers": {}, "body": ""},
             {"id": "reset", "dialect": "kimi", "http_status": None, "curl_code": 56, "headers": {}, "body": ""}]
    _, results = classify(lines)
    assert [(r["category"], r["origin"], r["retryable"]) for r in results] == \
        [("network", "network", True), ("network", "network", True), ("timeout", "network", True),
         ("network", "network", True)]


def test_classify_reads_retry_after_in_all_its_forms():
    now = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
    forms = [({"retry-after": "7"}, 7.0), ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
             ({"retry-after": "Sunday, 06-Nov-94 08:49:47 GMT"}, 10.0),
             ({"retry-after": "Sun Nov  6 08:49:47 1994"}, 10.0),
             ({"retry-after": "30", "retry-after-ms": "1500"}, 1.5),
             ({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 0.0),
             ({"retry-after": "soon"}, None), ({"retry-after": "-5"}, None), ({}, None)]
    lines = [{"id": n, "dialect": "openai", "http_status": 429, "headers": headers, "body": "", "now": now}
             for n, (headers, _) in enumerate(forms)]
    _, results = classify(lines)
    assert [result["retry_after"] for result in results] == [seconds for _, seconds in forms]


def test_classify_obeys_x_should_retry():
    lines = [{"id": 1, "dialect": "openai", "http_status": 503, "headers": {"x-should-retry": "false"}, "body": ""},
             {"id": 2, "dialect": "openai", "http_status": 400, "headers": {"x-should-retry": "true"}, "body": ""}]
    _, results = classify(lines)
    assert [result["retryable"] for result in results] == [False, True]


def test_classify_says_once_that_a_dialect_is_unknown():
    line = {"id": 1, "dialect": "kimmi", "http_status": 503, "headers": {}, "body": ""}
    done, results = classify([{**line, "dialect": "generic"}, line, {**line, "dialect": "other"}])
    assert done.returncode == 0 and [result["category"] for result in results] == ["overloaded"] * 3
    assert done.stderr.splitlines() == ["parry classify: line 2: there is no dialect 'kimmi', did you mean 'kimi'?; such "
                                        "lines are taken as generic"], done.stderr


def test_classify_survives_bad_lines():
    good = {"id": "g", "dialect": "openai", "http_status": 503, "headers": {}, "body": ""}
    done, results = classify([good, b"this is no JSON\n", b"[1,2]\n", b'{"id":1}\n', b"\xff\xfe\n", good])
    assert done.returncode == 1 and len(results) == 6, results
    for number, result in ((2, results[1]), (3, results[2]), (5, results[4])):
        assert result["id"] is None and result["error"].startswith(f"line {number}: "), result
    assert results[0]["category"] == results[5]["category"] == "overloaded"
