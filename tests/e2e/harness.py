"""What the end-to-end tests share: real processes, real sockets, nothing but the loopback.

Sim, Gateway   `parry sim` and `parry serve` on ports of the kernel's choice; both must end cleanly
Provider       an upstream scripted byte by byte: what it sends, when, and how it breaks
Reply, send    a plain HTTP client that also shows what is wrong with an answer
Folder         a temporary copy of the shipped policies with an init.lua of the test's own

Nothing sleeps for a fixed time to "let something happen": wait_until() polls every 20 ms and fails with a name.
Every port is 0, and every time limit is generous: a slow machine under sanitizers must not fail a test.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

PARRY = os.environ.get("PARRY_BIN") or "parry"
SHARE = pathlib.Path(os.environ.get("PARRY_SHARE") or pathlib.Path(__file__).parents[2] / "policies")
PATIENCE = 20.0  # seconds after which something that should happen has not happened

SANITIZER = re.compile(r"(?:Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")


def wait_until(condition, what, seconds=PATIENCE):
    """The first true result of `condition`; fails when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.02)


# --- Processes --------------------------------------------------------------------------------------------


class Process:
    """One `parry` command that runs until told to end. Lines of stderr are kept, and shown when a test fails."""

    running = []

    def __init__(self, *arguments, env=None):
        self.arguments = [PARRY, *map(str, arguments)]
        self.lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            self.arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=clean_environment(env))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        Process.running.append(self)

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()

    @property
    def output(self):
        return "\n".join(self.lines)

    def wait_line(self, matches, seconds=PATIENCE, start=0):
        """The first line from index `start` for which `matches` is true."""
        end = time.monotonic() + seconds
        with self._changed:
            at = start
            while True:
                for at in range(at, len(self.lines)):
                    if matches(self.lines[at]):
                        return self.lines[at]
                at = len(self.lines)
                left = end - time.monotonic()
                dead = self.process.poll() is not None and not self._reader.is_alive()
                if left <= 0 or dead:
                    raise AssertionError(f"no such line from {self.arguments[1]}:\n" + "\n".join(self.lines[-60:]))
                self._changed.wait(min(left, 0.05))

    def stop(self, number=signal.SIGTERM, seconds=10):
        """Ends it and insists on a clean end: exit code 0 soon, no word of a sanitizer."""
        if self in Process.running:
            Process.running.remove(self)
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.arguments[1]} did not end within {seconds} s of {number!r}") from None
        self._reader.join(5)
        self.process.stdout.close()
        assert not SANITIZER.search(self.output), self.output
        assert code == 0, f"{self.arguments[1]} ended with {code} after {time.monotonic() - began:.1f} s"

    def kill(self):
        if self in Process.running:
            Process.running.remove(self)
        self.process.kill()
        self.process.wait()
        self._reader.join(5)


def clean_environment(more=None):
    """The test's environment without anything that could steer parry or send its requests elsewhere."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("PARRY_") and not k.lower().endswith("_proxy") and k != "CREDENTIALS_DIRECTORY"}
    env["PARRY_SHARE"] = str(SHARE)
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1")
    env.update(more or {})
    return env


def run_parry(*arguments, input=None, env=None, cwd=None, timeout=60):
    """Runs a command to its end: the CompletedProcess, with text."""
    done = subprocess.run([PARRY, *map(str, arguments)], input=input, capture_output=True, timeout=timeout,
                          env=clean_environment(env), cwd=cwd,
                          **({} if input is not None else {"stdin": subprocess.DEVNULL}))
    done.stdout, done.stderr = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert not SANITIZER.search(done.stderr), done.stderr
    return done


class Sim(Process):
    """`parry sim`: the provider that fails as each request asks."""

    def __init__(self, *arguments):
        super().__init__("sim", "--listen", "127.0.0.1:0", "--quiet", *arguments)
        self.url = self.wait_line(lambda line: "ready on" in line).split("ready on ")[1].strip()
        self.address = self.url.removeprefix("http://").removeprefix("https://")

    def control(self, method, path):
        reply = send(self.address, method, path)
        assert reply.status == 200, reply
        return reply

    def stats(self):
        return self.control("GET", "/sim/stats").json()

    def reset(self):
        self.control("POST", "/sim/reset")

    def last_body(self):
        return self.control("GET", "/sim/last").body

    def last_headers(self):
        return self.control("GET", "/sim/last-headers").json()


class Gateway(Process):
    """`parry serve` on a folder of policies, with four workers whatever the machine has: what only goes wrong between
    threads should go wrong here."""

    def __init__(self, folder, *arguments, env=None):
        self.directory = tempfile.mkdtemp(prefix="parry-e2e-")  # short: a socket's path holds 107 bytes
        self.admin = "unix:" + os.path.join(self.directory, "admin.sock")
        self.folder = folder
        path = getattr(folder, "path", folder)
        super().__init__("serve", "--policies", path, "--listen", "127.0.0.1:0", "--admin", self.admin,
                         "--allow-host", "x", "--allow-host", "parry",  # what requests written by hand call it
                         "--log-format", "json", "--lua-wall-ms", "2000", "--workers", "4", *arguments, env=env)
        ready = json.loads(self.wait_line(lambda line: '"msg":"ready"' in line))
        self.url = ready["gateway"]
        self.address = self.url.removeprefix("http://").removeprefix("https://")
        assert ready["admin"] == self.admin

    # What the log says, as dictionaries; what is no JSON line is left out.
    def log(self, msg=None, start=0):
        found = []
        for line in self.lines[start:]:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and (msg is None or entry.get("msg") == msg):
                    found.append(entry)
        return found

    def verdicts(self, call_id):
        """What was decided about a call that has ended, in order. Its last line may come after its answer."""
        self.wait_log("call", lambda entry: entry["call_id"] == call_id)
        return [entry for entry in self.log("verdict") if entry["call_id"] == call_id]

    def wait_log(self, msg, matches=lambda entry: True, seconds=PATIENCE, start=0):
        def look():
            return next((entry for entry in self.log(msg, start) if matches(entry)), None)
        return wait_until(look, f"a log line {msg!r}", seconds)

    def ask(self, method, path, body=None):
        return send(self.admin, method, path, body=body)

    def status(self):
        reply = self.ask("GET", "/api/v1/status")
        assert reply.status == 200, reply
        return reply.json()

    def metrics(self):
        """{'name{labels}': value} of the Prometheus text."""
        reply = self.ask("GET", "/metrics")
        assert reply.status == 200, reply
        found = {}
        for line in reply.text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def command(self, name, *arguments, **options):
        return run_parry(name, "--admin", self.admin, *arguments, **options)

    def post(self, path, body, headers=None, **options):
        return send(self.address, "POST", path, body=body, headers=headers, **options)

    def chat(self, model, headers=None, text="hello", path="/v1/chat/completions", **more):
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.post(path, body, headers)

    def wait_idle(self):
        """No call is open, nothing waits, no request is kept: nothing has leaked."""
        def idle():
            status = self.status()
            return (status["calls_open"] == 0 and status["waiting_for_a_place"] == 0
                    and status["replay_bytes"] == 0) and status
        return wait_until(idle, "no call is open any more")

    def stop(self, *arguments, **options):
        try:
            if self.process.poll() is None:
                self.wait_idle()
        finally:
            super().stop(*arguments, **options)
            shutil.rmtree(self.directory, ignore_errors=True)


# --- Policies ---------------------------------------------------------------------------------------------


class Folder:
    """A copy of the shipped policies to edit. Their own tests are left out unless asked for: they would run at each
    load, and they are a test of their own."""

    def __init__(self, path, init, tests=False):
        self.path = pathlib.Path(path)
        shutil.copytree(SHARE, self.path, ignore=None if tests else shutil.ignore_patterns("*_test.lua"))
        self.write("init.lua", init)

    def read(self, name):
        return (self.path / name).read_text()

    def write(self, name, text):
        (self.path / name).write_text(text)

    def replace(self, name, old, new):
        text = self.read(name)
        assert old in text, f"{name} holds no {old!r}"
        self.write(name, text.replace(old, new))


CHAIN = """{
    use "circuit_breaker" { failures = 50 },
    use "token_refresh",
    use "retry" { max_attempts = 4, base = 0.05, cap = 0.2 },
    %s
    use "alert",
  }"""


def chain(fallback=""):
    return CHAIN % (f'use "fallback_model" {{ {fallback} }},' if fallback else 'use "fallback_model",')


# --- An HTTP client that hides nothing -----------------------------------------------------------------------


def connect(address, seconds=PATIENCE):
    if address.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(seconds)
        made.connect(address.removeprefix("unix:"))
        return made
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), seconds)


class Reply:
    """An answer. `whole`: it ended as HTTP says it must; otherwise it was broken off."""

    def __init__(self, status, headers, body, whole, seconds):
        self.status, self.headers, self.body, self.whole, self.seconds = status, headers, body, whole, seconds

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of each event of a stream: parsed JSON, or the text when it is none."""
        return [event for _, event in self.named_events()]

    def named_events(self):
        found = []
        for block in self.text.replace("\r\n", "\n").split("\n\n"):
            data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
            name = [line[6:].strip() for line in block.split("\n") if line.startswith("event:")]
            if data:
                text = "\n".join(data)
                with contextlib.suppress(ValueError):
                    text = json.loads(text)
                found.append((name[0] if name else None, text))
        return found

    def said(self):
        """The text that an OpenAI stream said."""
        return "".join(choice["delta"].get("content") or ""
                       for event in self.events() if isinstance(event, dict)
                       for choice in event.get("choices", []))

    @property
    def attempts(self):
        return int(self.headers["parry-attempts"])

    @property
    def target(self):
        return self.headers["parry-target"]

    @property
    def call_id(self):
        return self.headers["parry-call-id"]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} whole={self.whole} {self.text[:2000]!r}>"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, address, timeout):
        super().__init__("localhost", timeout=timeout)
        self.address = address

    def connect(self):
        self.sock = connect(self.address, self.timeout)


def send(address, method, path, body=None, headers=None, seconds=60):
    """One request on a connection of its own, read to its end."""
    began = time.monotonic()
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("content-type", "application/json")
    connection = UnixConnection(address, seconds)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        got, whole = b"", True
        try:
            while True:
                piece = answer.read1(65536)
                if not piece:
                    break
                got += piece
            whole = answer.length in (None, 0)
        except (http.client.IncompleteRead, ConnectionError, ValueError) as problem:
            got += getattr(problem, "partial", b"")
            whole = False
        return Reply(answer.status, answer.headers, got, whole, time.monotonic() - began)
    finally:
        connection.close()


def chat_bytes(model, headers=None, path="/v1/chat/completions", **more):
    """A whole chat request as bytes, for clients that leave early."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **more}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: parry", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def raw(address, data, seconds=PATIENCE):
    """Sends bytes and returns all that comes back until the other side closes."""
    with connect(address, seconds) as made:
        with contextlib.suppress(ConnectionError):
            made.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionError, socket.timeout):
            while piece := made.recv(65536):
                got += piece
        return got


# --- A scripted provider ----------------------------------------------------------------------------------


def reset(made):
    """Closes so that the other side sees RST."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()


class Asked:
    """One request that reached a Provider, and the connection to answer it on."""

    def __init__(self, provider, made, method, path, headers, body):
        self.provider, self.made = provider, made
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.at = time.monotonic()
        self.left_at = None  # when the other side was seen to leave, if hang() waited for it

    def json(self):
        return json.loads(self.body)

    def send(self, data):
        self.made.sendall(data)

    def hang(self):
        """Says nothing until the other side leaves or the provider is stopped."""
        while not self.provider.stopping.is_set():
            self.made.settimeout(0.05)
            try:
                if not self.made.recv(1):
                    break
            except socket.timeout:
                continue
            except OSError:
                break
        self.left_at = time.monotonic()


class Provider:
    """A TCP server that answers the n-th request with the n-th step, and every further one with `otherwise`.

    A step is bytes (sent as they are), or a function of the Asked that sends what it likes; it returns True to keep the
    connection open. After bytes the connection stays open: HTTP says where the answer ends. CLOSE and RESET end it.
    """

    def __init__(self, *steps, otherwise=None):
        self.steps = list(steps)
        self.otherwise = otherwise
        self.asked = []
        self.problems = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(0.05)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self.url = "http://" + self.address
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while not self.stopping.is_set():
            try:
                made, _ = self._listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(made,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read_request(self, made):
        data = b""
        made.settimeout(0.05)

        def more():
            while not self.stopping.is_set():
                try:
                    return made.recv(65536)
                except socket.timeout:
                    continue
            return b""

        while b"\r\n\r\n" not in data:
            piece = more()
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            piece = more()
            if not piece:
                return None
            body += piece
        method, path, _ = first.split(" ")
        return Asked(self, made, method, path, headers, body)

    def _next_step(self, asked):
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
        if number < len(self.steps):
            return self.steps[number]
        if self.otherwise is None:
            self.problems.append(f"request {number + 1} to a script of {len(self.steps)}")
        return self.otherwise

    def _serve(self, made):
        try:
            keep = True
            while keep and not self.stopping.is_set():
                asked = self._read_request(made)
                if not asked:
                    break
                step = self._next_step(asked)
                if isinstance(step, bytes):
                    made.sendall(step)
                else:
                    keep = bool(step) and bool(step(asked))
        except OSError:
            pass
        finally:
            made.close()

    def stop(self):
        self.stopping.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        assert not self.problems, self.problems


def answer(status, body, headers=None, reason="Scripted"):
    """An HTTP answer as bytes; a body that is no bytes becomes JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    if "content-type" not in {name.lower() for name in headers or {}}:
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ok(text="fine", model="m"):
    return answer(200, {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})


def failure(status, message="failed", code=None, headers=None):
    return answer(status, {"error": {"message": message, "type": "api_error", "param": None, "code": code}}, headers)


def stream_head():
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data, name=None):
    text = data if isinstance(data, str) else json.dumps(data)
    return ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()


def delta(**content):
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                  "choices": [{"index": 0, "delta": content, "finish_reason": None}]})


def stream(*events, end=True):
    """A chunked stream of events, ended properly unless told otherwise."""
    return stream_head() + b"".join(map(chunk, events)) + (b"0\r\n\r\n" if end else b"")


def then_close(data):
    """Sends and closes: a cut when the data promised more."""
    def step(asked):
        asked.send(data)
    return step


def then_reset(data=b""):
    def step(asked):
        if data:
            asked.send(data)
        reset(asked.made)
    return step


def then_hang(data=b""):
    def step(asked):
        if data:
            asked.send(data)
        asked.hang()
    return step


class Receiver(Provider):
    """A webhook's other end: takes everything with 200."""

    def __init__(self):
        super().__init__(otherwise=answer(200, {}))

    def alerts(self):
        return [asked.json() for asked in list(self.asked)]


def refused_port():
    """A port of the loopback where nobody listens: it was ours a moment ago and is kept bound, so that nobody else gets
    it. Returns (port, the socket to hold)."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder.getsockname()[1], holder
