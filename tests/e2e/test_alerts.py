"""Alerts over real sockets: fake chat services that verify signatures and count as the real ones do, a mail server, and a
storm of errors that people hear of a few times and not a thousand."""

import base64
import email
import email.header
import email.policy
import hashlib
import hmac
import http.server
import json
import re
import socket
import socketserver
import threading
import time
import urllib.parse

import pytest

from harness import run_parry, wait_until

SIGN = "demo-signing-secret-of-the-robot"


class Service:
    """The other end of a sink: keeps what it took, and answers as the service does."""

    def __init__(self, judge):
        self.judge, self.took, self.refused, self.lock = judge, [], [], threading.Lock()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with service.lock:
                    status, answer, message = service.judge(service, self, body)
                    (service.took if message is not None else service.refused).append(message or answer)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.times = []
        self.muted_until = 0
        self.mutes = 0
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def too_fast(self, per_minute, mute):
        """Its own accounting, on its own clock."""
        now = time.monotonic()
        self.times = [at for at in self.times if now - at < 60] + [now]
        if len(self.times) > per_minute and now >= self.muted_until:
            self.muted_until, self.mutes = now + mute, self.mutes + 1
        return now < self.muted_until


def hmac_base64(key, message):
    return base64.b64encode(hmac.new(key.encode(), message.encode(), hashlib.sha256).digest()).decode()


def slack(service, request, body):
    text = json.loads(body)["text"]
    return (429, b"rate_limited", None) if service.too_fast(60, 30) else (200, b"ok", text)


def feishu(service, request, body):
    message = json.loads(body)
    fresh = abs(int(message["timestamp"]) - time.time()) < 3600
    if not fresh or message["sign"] != hmac_base64(f"{message['timestamp']}\n{SIGN}", ""):
        return 200, {"code": 19021, "msg": "sign match fail or timestamp is not within one hour"}, None
    if len(body) > 20 * 1024 or message["msg_type"] != "text":
        return 200, {"code": 9499, "msg": "Bad Request"}, None
    if service.too_fast(100, 60):
        return 200, {"code": 11232, "msg": "frequency limited"}, None
    return 200, {"code": 0, "msg": "success", "data": {}}, message["content"]["text"]


def dingtalk(service, request, body):
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
    at, sign = query["timestamp"][0], query["sign"][0]
    if query["access_token"] != ["robot-token"] or abs(int(at) / 1000 - time.time()) > 3600 \
            or sign != hmac_base64(SIGN, f"{at}\n{SIGN}"):
        return 200, {"errcode": 310000, "errmsg": "sign not match"}, None
    if service.too_fast(20, 600):
        return 200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}, None
    return 200, {"errcode": 0, "errmsg": "ok"}, json.loads(body)["text"]["content"]


def wecom(service, request, body):
    content = json.loads(body)["markdown"]["content"]
    if len(content.encode()) > 4096:
        return 200, {"errcode": 40058, "errmsg": "markdown.content exceed max length 4096"}, None
    if service.too_fast(20, 60):
        return 200, {"errcode": 45009, "errmsg": "api freq out of limit"}, None
    return 200, {"errcode": 0, "errmsg": "ok"}, content


def pagerduty(service, request, body):
    event = json.loads(body)
    if event["routing_key"] != "routing-key-of-the-service" or event["event_action"] not in ("trigger", "resolve"):
        return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["bad key"]}, None
    assert len(event["payload"]["summary"]) <= 1024 and len(event["dedup_key"]) <= 255
    assert event["payload"]["severity"] in ("info", "warning", "error", "critical") and event["payload"]["source"]
    return 202, {"status": "success", "dedup_key": event["dedup_key"]}, event


def sentry(service, request, body):
    if "sentry_key=publickey," not in request.headers["x-sentry-auth"] + "," \
            or request.path != "/api/42/envelope/" or not request.headers["x-sentry-auth"].startswith("Sentry "):
        return 403, {"detail": "bad sentry DSN public key"}, None
    head, item, rest = body.split(b"\n", 2)
    length = json.loads(item)["length"]
    event = json.loads(rest[:length])
    assert rest[length:] == b"\n" and json.loads(head)["event_id"] == event["event_id"]
    return 200, {"id": event["event_id"]}, event


def webhook(service, request, body):
    parts = dict(part.split("=", 1) for part in request.headers["parry-signature"].split(","))
    expected = hmac.new(SIGN.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    return (204, b"", json.loads(body)) if parts["v1"] == expected else (403, {}, None)


class Mail:
    """A mail server of one's own, RFC 5321's minimum; `refuse` answers RCPT, `silent` never answers the mail."""

    def __init__(self, refuse=None, silent=False):
        self.mails, self.commands, mails = [], [], self
        hold = self.hold = threading.Event()

        class Handler(socketserver.StreamRequestHandler):
            def say(self, line):
                self.wfile.write(line.encode() + b"\r\n")

            def handle(self):
                self.say("220 mail.test ESMTP")
                while line := self.rfile.readline().decode().rstrip("\r\n"):
                    mails.commands.append(line)
                    verb = line.split(" ")[0].upper()
                    if verb == "EHLO":
                        self.wfile.write(b"250-mail.test\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n")
                    elif verb == "AUTH":
                        self.say("334 ")
                        mails.commands.append(self.rfile.readline().decode().rstrip("\r\n"))
                        self.say("235 welcome")
                    elif verb == "RCPT" and refuse:
                        self.say(refuse)
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = []
                        while (line := self.rfile.readline()) != b".\r\n":
                            assert line.endswith(b"\r\n")
                            lines.append(line[1:] if line.startswith(b".") else line)
                        mails.mails.append(b"".join(lines))
                        if silent:
                            hold.wait(60)
                        self.say("250 queued")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"smtp://127.0.0.1:{self.server.server_address[1]}"

    def stop(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()

    def parsed(self):
        return [email.message_from_bytes(mail, policy=email.policy.default) for mail in self.mails]


INIT = """
provider "p" {{ base_url = "{sim}/v1", dialect = "openai", auth = bearer(secret "PROVIDER_KEY"), models = {{ "m" }} }}
{sinks}
route "/v1/*" {{ to = "p", chain = {{ use "alert" {{ to = {to}, by = "provider", again = 1, fallback_share = 1,
  rules = {{ {{ category = "server", count = 5, window = 1, cooldown = 1 }} }} }} }} }}
"""

SINKS = {
    "slack": (slack, 'slack = secret "HOOK"', "/services/T0/B0/hidden"),
    "feishu": (feishu, 'feishu = secret "HOOK", sign = secret "SIGN"', "/open-apis/bot/v2/hook/hidden"),
    "dingtalk": (dingtalk, 'dingtalk = secret "HOOK", sign = secret "SIGN"', "/robot/send?access_token=robot-token"),
    "wecom": (wecom, 'wecom = secret "HOOK"', "/cgi-bin/webhook/send?key=hidden"),
    "webhook": (webhook, 'webhook = secret "HOOK", sign = secret "SIGN", per_minute = 60', "/hidden"),
    "pagerduty": (pagerduty, 'pagerduty = secret "HOOK", url = "{url}/v2/enqueue"', None),
    "sentry": (sentry, 'sentry = secret "HOOK"', None),
}


def secrets_for(name, service):
    path = SINKS[name][2]
    value = service.url + path if path else \
        "routing-key-of-the-service" if name == "pagerduty" else service.url.replace("//", "//publickey@") + "/42"
    return {"PROVIDER_KEY": "provider-key-1234", "HOOK": value, "SIGN": SIGN}


def sink_line(name, service, more=""):
    return f'sink "ops" {{ {SINKS[name][1].format(url=service.url)}{more} }}'


def fail_calls(gateway, count):
    """So many failing calls, several at a time."""
    left = list(range(count))

    def work():
        while left:
            try:
                left.pop()
            except IndexError:
                return
            gateway.chat("m", headers={"x-sim-fault": "code=500"})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("name", SINKS)
def test_a_storm_is_told_a_few_times(start, name):
    """1000 failing calls: one opening, a bounded number of updates, one end. The service refuses nothing: signatures fit,
    and no minute holds too many."""
    service = start.keep(Service(SINKS[name][0]))
    sim = start.sim()
    gateway = start.gateway(INIT.format(sim=sim.url, sinks=sink_line(name, service, ", digest = 0.2"), to='"ops"'),
                            env=secrets_for(name, service))
    began = time.monotonic()
    fail_calls(gateway, 1000)
    wait_until(lambda: service.took, "the alert")
    wait_until(lambda: gateway.chat("m").status == 200 and gateway.status()["alerts"]["open"] == 0, "it is over")
    wait_until(lambda: gateway.status()["alerts"]["queued"] == 0, "all is told")
    seconds = time.monotonic() - began
    assert not service.refused and service.mutes == 0, service.refused
    told = service.took
    assert 1 <= len(told) <= 2 + seconds + 1, (len(told), seconds)  # the opening, one a second (`again`), the end
    text = json.dumps(told)
    assert "hello" not in text and "provider-key-1234" not in text  # the prompt, the key
    if name == "sentry":
        assert {event["fingerprint"][1] for event in told} == {"alert/category server at p"}
    elif name == "pagerduty":
        assert told[0]["event_action"] == "trigger" and told[-1]["event_action"] == "resolve"
        assert len({event["dedup_key"] for event in told}) == 1
        assert [event["event_action"] for event in told].count("resolve") == 1
        assert 990 <= told[-1]["payload"]["custom_details"]["count"] <= 1000  # some met on two workers before it opened
    elif name == "webhook":
        assert [alert["state"] for alert in told].count("resolved") == 1 and told[-1]["state"] == "resolved"
        assert 990 <= told[-1]["count"] <= 1000 and told[-1]["cause"].startswith("server, HTTP 500")
    else:
        opened = [text for text in told if "FIRING (error): category server at p" in text and "STILL" not in text]
        assert len(opened) <= 1 and sum("RESOLVED" in text for text in told) == 1
        assert re.search(r"\n(99\d|1000) times from ", told[-1]) and "most often: server, HTTP 500" in told[-1]
    assert all(value not in gateway.output for value in ("hidden", "robot-token", "routing-key", "publickey", SIGN))


def test_dingtalk_is_never_made_mute(start):
    """Many alerts, each another key: the real one would be mute for ten minutes at the 21st message of a minute."""
    service = start.keep(Service(dingtalk))
    sim = start.sim()
    init = INIT.format(sim=sim.url, sinks=sink_line("dingtalk", service, ", digest = 0, per_minute = 18"), to='"ops"')
    gateway = start.gateway(init.replace('by = "provider"', 'by = "target"').replace("count = 5", "count = 1"),
                            env=secrets_for("dingtalk", service))
    for i in range(100):
        gateway.chat(f"m{i}", headers={"x-sim-fault": "code=500"})
    wait_until(lambda: gateway.status()["alerts"]["queued"] == 0, "all is told")
    assert service.mutes == 0 and not service.refused
    assert len(service.took) <= 18
    text = "\n".join(service.took)
    assert all(f"category server at p/m{i}\n" in text for i in range(100)) or "more, see the log" in text
    assert gateway.metrics()['parry_alerts_total{sink="ops",result="delivered"}'] == 100


def test_a_mute_robot_gets_the_rest_in_one(start):
    """Slack says how long it wants to be left alone; what comes meanwhile is one message."""
    calls = []

    def judge(service, request, body):
        calls.append(time.monotonic())
        return (200, b"ok", json.loads(body)["text"]) if len(calls) > 1 else (503, b"", None)

    service = start.keep(Service(judge))
    sim = start.sim()
    init = INIT.format(sim=sim.url, sinks=sink_line("slack", service, ", digest = 0.1"), to='"ops"')
    gateway = start.gateway(init.replace('by = "provider"', 'by = "target"').replace("count = 5", "count = 1"),
                            env=secrets_for("slack", service))
    gateway.chat("m0", headers={"x-sim-fault": "code=500"})
    wait_until(lambda: calls, "the first try")
    for i in range(1, 5):
        gateway.chat(f"m{i}", headers={"x-sim-fault": "code=500"})
    wait_until(lambda: len(service.took) == 2, "the second try, and the others")
    assert "category server at p/m0" in service.took[0]
    assert "[parry] 4 alerts" in service.took[1]


MAIL = 'sink "ops" {{ smtp = "{url}", from = "parry@example.com", to = {{ "ops@example.com", "b@example.com" }}, digest = 0{more} }}'


def mailing(start, server, more=""):
    sim = start.sim()
    return start.gateway(INIT.format(sim=sim.url, sinks=MAIL.format(url=server.url, more=more), to='"ops"'),
                         env={"PROVIDER_KEY": "provider-key-1234", "WHO": "mail-user", "WORD": "mail-pass-word"})


def test_mail(start):
    server = start.keep(Mail())
    gateway = mailing(start, server, ', user = secret "WHO", password = secret "WORD"')
    fail_calls(gateway, 5)
    mail = wait_until(server.parsed, "a mail")[0]
    assert mail["subject"] == "[parry] FIRING (error): category server at p"
    assert mail["from"] == "parry <parry@example.com>" and mail["to"] == "ops@example.com, b@example.com"
    assert mail["auto-submitted"] == "auto-generated" and mail["message-id"].endswith("@example.com>")
    assert abs(mail["date"].datetime.timestamp() - time.time()) < 60
    assert "5 x category server at p within 1 s" in mail.get_content()
    assert "MAIL FROM:<parry@example.com>" in [line.split(" SIZE")[0].split(" BODY")[0] for line in server.commands]
    assert "RCPT TO:<ops@example.com>" in server.commands and "RCPT TO:<b@example.com>" in server.commands
    encoded = server.commands[server.commands.index("AUTH PLAIN") + 1]
    assert base64.b64decode(encoded) == b"\0mail-user\0mail-pass-word"
    assert "mail-pass-word" not in gateway.output


def test_a_mail_server_that_keeps_still_delays_nobody(start):
    """curl waits for the answer to a mail inside its multi handle: on the control worker that would stop everything."""
    server = start.keep(Mail(silent=True))
    gateway = mailing(start, server)
    fail_calls(gateway, 5)
    wait_until(lambda: server.mails, "the mail")
    for _ in range(20):
        began = time.monotonic()
        assert gateway.status()["alerts"]["queued"] >= 1
        assert time.monotonic() - began < 5
    assert "worker is stuck" not in gateway.output
    server.hold.set()
    wait_until(lambda: gateway.status()["alerts"]["queued"] == 0, "the mail is delivered")


def test_parry_ends_while_a_mail_is_being_sent(start):
    server = start.keep(Mail(silent=True))
    gateway = mailing(start, server)
    fail_calls(gateway, 5)
    wait_until(lambda: server.mails, "the mail")
    gateway.stop()


@pytest.mark.parametrize("refusal", ["550 5.1.1 no such user here", "451 4.7.1 try again later"])
def test_a_mail_that_is_refused(start, refusal):
    server = start.keep(Mail(refuse=refusal))
    gateway = mailing(start, server)
    done = gateway.command("alert", "test", "ops")
    assert done.returncode == 1 and f"ops: not accepted: status {refusal[:3]}: {refusal}\n" == done.stderr, done
    assert not server.mails


def test_without_tls_nothing_is_said(start):
    """A server beyond loopback must speak TLS; here it is asked to although it is near, and cannot."""
    server = start.keep(Mail())
    gateway = mailing(start, server, ', tls = "required", user = secret "WHO", password = secret "WORD"')
    done = gateway.command("alert", "test", "ops")
    assert done.returncode == 1 and "not accepted" in done.stderr, done
    assert not server.mails and not any(line.startswith(("AUTH", "MAIL")) for line in server.commands)


# --- parry alert --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SINKS)
def test_trying_a_sink(start, name):
    """Through the running parry, and without one; a wrong signature is the service's own words, and exit code 1."""
    service = start.keep(Service(SINKS[name][0]))
    env = secrets_for(name, service)
    folder = start.folder(INIT.format(sim="http://127.0.0.1:9", sinks=sink_line(name, service), to='"ops"'))
    gateway = start.gateway(folder, env=env)
    done = gateway.command("alert", "test", "ops", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"sink": "ops", "accepted": True, "error": ""}, done
    assert "test" in json.dumps(service.took[0]).lower()
    done = run_parry("alert", "test", "ops", "--policies", folder.path, env=env)
    assert done.returncode == 0 and done.stdout == "ops: accepted\n", done
    assert len(service.took) == 2
    wrong = dict(env, SIGN="another-secret", HOOK=env["HOOK"].replace("routing", "wrong").replace("publickey@", "other@"))
    done = run_parry("alert", "test", "ops", "--policies", folder.path, env=wrong)
    words = {"feishu": "code 19021: sign match fail", "dingtalk": "errcode 310000: sign not match",
             "pagerduty": "status 400: bad key", "sentry": "status 403: bad sentry DSN public key",
             "webhook": "status 403"}
    if name in words:
        assert done.returncode == 1 and words[name] in done.stderr, done
        done = run_parry("alert", "test", "ops", "--policies", folder.path, "--json", env=wrong)
        answer = json.loads(done.stdout)
        assert done.returncode == 1 and not answer["accepted"] and words[name] in answer["error"]
    for value in wrong["HOOK"], "another-secret", SIGN:
        assert value not in done.stdout + done.stderr


def test_trying_what_is_not_there(start, tmp_path):
    gateway = start.gateway(INIT.format(sim="http://127.0.0.1:9", sinks='sink "ops" { slack = secret "NOT_THERE" }',
                                        to='"ops"'))
    done = gateway.command("alert", "test", "ops")
    assert done.returncode == 1 and "the sink's secret is missing" in done.stderr, done
    done = gateway.command("alert", "test", "nobody", "--json")
    assert done.returncode == 1 and "no sink of that name" in json.loads(done.stdout)["error"], done
    assert gateway.command("alert", "test").returncode == 2
    assert gateway.command("alert", "tset", "ops").returncode == 2
    assert gateway.command("alert", "test", "a/b?c").returncode == 2
    assert run_parry("alert", "list", "--admin", f"unix:{tmp_path}/none").returncode == 3
    assert run_parry("alert", "test", "ops", "--admin", f"unix:{tmp_path}/none").returncode == 3
    assert run_parry("alert", "test", "ops", "--policies", tmp_path / "none").returncode == 1
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        folder = start.folder(INIT.format(sim="http://127.0.0.1:9", sinks='sink "ops" { slack = secret "HOOK" }', to='"ops"'))
        done = run_parry("alert", "test", "ops", "--policies", folder.path,
                         env={"HOOK": f"http://127.0.0.1:{closed.getsockname()[1]}/hidden", "PROVIDER_KEY": "x" * 8})
        assert done.returncode == 1 and "hidden" not in done.stderr + done.stdout, done


def test_what_is_open(start):
    service = start.keep(Service(webhook))
    sim = start.sim()
    gateway = start.gateway(INIT.format(sim=sim.url, sinks=sink_line("webhook", service), to='"ops"'),
                            env=secrets_for("webhook", service))
    assert json.loads(gateway.command("alert", "list", "--json").stdout)["alerts"] == []

    def open_alerts():
        return json.loads(gateway.command("alert", "list", "--json").stdout)["alerts"]

    fail_calls(gateway, 5)
    [alert] = wait_until(open_alerts, "the alert is open")
    assert (alert["sink"], alert["key"], alert["severity"]) == ("ops", "alert/category server at p", "error"), alert
    fail_calls(gateway, 2)
    wait_until(lambda: open_alerts()[0]["count"] == alert["count"] + 2, "two more are counted")
    done = gateway.command("alert", "list")
    count = alert["count"] + 2
    assert "alert/category server at p" in done.stdout and f"{count} times" in done.stdout
    init = gateway.folder.read("init.lua")  # survives a reload
    gateway.folder.write("init.lua", init + "\n-- saved\n")
    assert gateway.command("reload").returncode == 0
    assert open_alerts()[0]["count"] == count
