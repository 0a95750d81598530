"""The edge of the real program: TLS, limits, sockets and words of a service manager, ports that are taken.

What the server does with bytes is shown in tests/unit/test_server*.c and test_smuggling.py; here, that the program has
it wired to its options, on every worker.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess

import pytest

import harness
from harness import answer, connect, ok, run_parry, stream_head, wait_until


def init_for(url):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", deadline = 30, chain = {{}} }}
"""


def make_certificate(folder, name, days=2):
    """A key and a certificate that signs itself; their paths."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days),
                    "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def handshake(gateway, certificate=None):
    """A TLS connection that trusts just this certificate, or anything."""
    context = ssl.create_default_context(cafile=certificate) if certificate else ssl._create_unverified_context()
    host, _, port = gateway.address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname="127.0.0.1")


def common_name(made):
    der = made.getpeercert(binary_form=True)
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject"], input=der, check=True,
                          capture_output=True).stdout.decode()
    return text.split("=")[-1].strip()


def ask(made, model="m", **more):
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **more}).encode()
    made.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(body) + body)
    reply = http.client.HTTPResponse(made)
    reply.begin()
    return reply.status, reply.read()


def test_tls_on_every_worker_and_a_new_certificate_without_a_cut(start, tmp_path):
    provider = start.provider(otherwise=ok("served"))
    certificate, key = make_certificate(tmp_path, "first")
    gateway = start.gateway(init_for(provider.url), "--tls-cert", certificate, "--tls-key", key, "--watch", "off")
    assert json.loads(gateway.wait_line(lambda line: '"msg":"ready"' in line))["gateway"].startswith("https://")
    with contextlib.ExitStack() as open_connections:
        made = [open_connections.enter_context(handshake(gateway, certificate)) for _ in range(16)]
        for one in made:
            assert ask(one)[0] == 200 and one.version() in ("TLSv1.2", "TLSv1.3")
        make_certificate(tmp_path, "second")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_log("TLS certificate reloaded")
        with handshake(gateway) as new:
            assert common_name(new) == "second" and ask(new)[0] == 200
        for one in made:
            assert ask(one)[0] == 200, "open connections go on"
        key.write_text("no key\n")
        gateway.process.send_signal(signal.SIGHUP)
        why = gateway.wait_log("TLS certificate not reloaded, the old one serves on")["why"]
        assert str(key) in why, why
        with handshake(gateway) as still:
            assert common_name(still) == "second" and ask(still)[0] == 200
        make_certificate(tmp_path, "third")
        assert gateway.command("reload").returncode == 0
        with handshake(gateway) as asked_for:
            assert common_name(asked_for) == "third", "`systemctl reload` is `parry reload`"
    workers = {entry["call_id"].split("_")[1] for entry in gateway.log("call")}
    assert len(workers) > 1, "connections were on several workers"
    plain = harness.raw(gateway.address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert plain.startswith(b"HTTP/1.1 400 "), plain


def test_a_stream_over_tls(start, tmp_path):
    events = b"".join(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%d \"}}]}\n\n" % i for i in range(500))

    def stream(asked):
        data = events + b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
        asked.send(stream_head() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        return True

    provider = start.provider(otherwise=stream)
    certificate, key = make_certificate(tmp_path, "one")
    gateway = start.gateway(init_for(provider.url), "--tls-cert", certificate, "--tls-key", key)
    with handshake(gateway, certificate) as made:
        status, body = ask(made, stream=True)
    assert status == 200 and body.startswith(events) and body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("arguments,words", [
    (["--tls-cert", "CERT"], "--tls-key"),
    (["--tls-key", "KEY"], "--tls-cert"),
    (["--tls-cert", "/nowhere.pem", "--tls-key", "KEY"], "/nowhere.pem"),
    (["--tls-cert", "CERT", "--tls-key", "OTHER"], "KEY|match|belong"),
])
def test_a_certificate_that_cannot_serve_refuses_the_start(start, tmp_path, arguments, words):
    certificate, key = make_certificate(tmp_path, "one")
    (tmp_path / "other").mkdir()
    _, other = make_certificate(tmp_path / "other", "two")
    names = {"CERT": certificate, "KEY": key, "OTHER": other}
    folder = start.folder(init_for("http://127.0.0.1:9"))
    ended = run_parry("serve", "--policies", folder.path, "--listen", "127.0.0.1:0", "--admin",
                      f"unix:{tmp_path}/a.sock", *[names.get(word, word) for word in arguments])
    assert ended.returncode == 78, ended
    assert any(word in ended.stderr for word in words.split("|")), ended.stderr


def test_a_port_is_not_shared_with_another_parry(start):
    provider = start.provider(otherwise=ok("served"))
    gateway = start.gateway(init_for(provider.url))
    second = run_parry("serve", "--policies", gateway.folder.path, "--listen", gateway.address, "--admin",
                       f"unix:{gateway.directory}/second.sock")
    assert second.returncode == 1 and "in use" in second.stderr, second


def test_connections_are_counted_over_all_workers(start):
    provider = start.provider(otherwise=ok("served"))
    gateway = start.gateway(init_for(provider.url), "--max-connections", "8")
    with contextlib.ExitStack() as held:
        made = [held.enter_context(connect(gateway.address)) for _ in range(8)]
        for one in made:
            assert ask(one)[0] == 200
        refused = harness.raw(gateway.address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 503 "), refused
    wait_until(lambda: b" 200 " in harness.raw(
        gateway.address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "there is room again")


def test_a_unix_socket_is_served_by_all_workers(start):
    provider = start.provider(otherwise=ok("served"))
    folder = start.folder(init_for(provider.url))
    gateway = start.gateway(folder)
    path = os.path.join(gateway.directory, "gateway.sock")
    other = start.gateway(folder, "--listen", f"unix:{path}")
    with contextlib.ExitStack() as held:
        for one in [held.enter_context(connect(f"unix:{path}")) for _ in range(40)]:
            assert ask(one)[0] == 200
    other.wait_idle()
    other.stop()
    assert not os.path.exists(path)


class Manager:
    """What systemd does: opens the sockets, passes them on, and listens to what the service says."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(self.path)
        self.notices.settimeout(0.05)
        self.heard = []

    def wait(self, word):
        def look():
            with contextlib.suppress(TimeoutError):
                while True:
                    self.heard.append(self.notices.recv(4096).decode())
            return any(word in said for said in self.heard)
        wait_until(look, f"it says {word}; it said {self.heard}")


def test_a_service_manager_passes_sockets_and_hears_what_happens(start, tmp_path, monkeypatch):
    provider = start.provider(otherwise=ok("served"))
    folder = start.folder(init_for(provider.url))
    manager = Manager(str(tmp_path))
    listener = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    admin = os.path.join(str(tmp_path), "admin.sock")
    script = ('dup=$1; shift; eval "exec 3<&$dup"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway; exec "$@"')
    environment = {**harness.clean_environment(), "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", str(listener.fileno()), harness.PARRY, "serve", "--policies",
         str(folder.path), "--admin", f"unix:{admin}", "--workers", "4"],
        env=environment, pass_fds=[listener.fileno()], stderr=subprocess.PIPE)
    try:
        manager.wait("READY=1")
        manager.wait("WATCHDOG=1")
        with contextlib.ExitStack() as held:
            for one in [held.enter_context(connect(address)) for _ in range(20)]:
                assert ask(one)[0] == 200
        process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.heard.clear()
        process.send_signal(signal.SIGTERM)
        manager.wait("STOPPING=1")
        assert process.wait(20) == 0
    finally:
        process.kill()
        said = process.stderr.read().decode()
        process.stderr.close()
    assert not harness.SANITIZER.search(said), said
    listener.settimeout(5)
    with socket.create_connection(listener.getsockname()):  # it is the manager's, and still open
        listener.accept()[0].close()


def test_not_ready_before_it_stops_accepting(start):
    provider = start.provider(otherwise=answer(200, {"ok": True}))
    gateway = start.gateway(init_for(provider.url), "--drain-delay", "1")
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: harness.send(gateway.address, "GET", "/readyz").status == 503, "load balancers see it")
    assert gateway.chat("m").status == 200, "who comes nevertheless is served"
    gateway.process.wait(20)
    assert gateway.process.returncode == 0
