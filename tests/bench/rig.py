"""What the benchmark starts: the provider, the proxies in front of it, and the load; and what /proc says of them."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import http.client

PARRY = os.environ["PARRY_BIN"]
SHARE = pathlib.Path(os.environ["PARRY_SHARE"])
PROGRAMS = pathlib.Path(os.environ["PARRY_BENCH"])  # where bench_load and the others are
PATIENCE = 30

# The demo's init.lua with all five shipped policies, and a first wait of 0: nginx and the floor program try again at
# once, too. Without a sink, alert tells the log.
INIT = """
provider "moonshot" { base_url = "http://127.0.0.1:PORT/v1", dialect = "openai", auth = bearer(secret "BENCH_KEY") }
provider "token360" { base_url = "http://127.0.0.1:PORT/v1", dialect = "openai", auth = bearer(secret "BENCH_KEY") }

route "/v1/*" {
  to = by_model { ["moonshot-*"] = "moonshot", ["*"] = "token360" },
  deadline = 60, timeouts = { connect = 5, first_byte = 10, idle = 30 },
  chain = {
    use "circuit_breaker" { failures = 5, cooldown = 10 },
    use "token_refresh",
    use "retry" { max_attempts = 3, base = 0 },
    use "fallback_model" { models = { ["sim-down"] = { "moonshot/moonshot-v1-128k" } } },
    use "alert",
  },
}
"""

# As much like the others as nginx can be: one worker, kept connections both ways, no log, and the next upstream after
# a 503, which is the same one again.
NGINX = """
worker_processes 1;
daemon off;
pid FOLDER/nginx.pid;
error_log FOLDER/nginx.log warn;
worker_rlimit_nofile FILES;
events { worker_connections CONNECTIONS; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  keepalive_requests 1000000000;
  upstream provider {
    server 127.0.0.1:PORT max_fails=0;
    server 127.0.0.1:PORT max_fails=0;
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:OWN backlog=4096;
    location / {
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream error timeout http_503 non_idempotent;
    }
  }
}
"""


def nginx_path():
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def raise_descriptors():
    """As many descriptors as this user may have, inherited by everything started later; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Cores:
    """Proxies on the last core, load and provider on another, so that neither takes the other's time."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        self.all = set(cores)
        self.proxy = {cores[-1]}
        self.load = set(cores[:-1]) or {cores[0]}


class Process:
    """A program that ends with us. Its output goes to a file, its standard input is a pipe of ours."""
    ends_cleanly = False  # must its exit code be 0?

    def __init__(self, arguments, folder, cores, environment=None):
        self.log = tempfile.NamedTemporaryFile(dir=folder, prefix=pathlib.Path(arguments[0]).name + ".", delete=False)
        self.popen = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.log, env={**os.environ, **(environment or {})},
                                      preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.pid = self.popen.pid

    def first_line(self):
        line = self.popen.stdout.readline().decode().strip()
        if not line:
            raise RuntimeError(f"{self.popen.args[0]} did not start: {self.said()}")
        return line

    def said(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def check(self):
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.popen.args[0]} ended with {self.popen.returncode}: {self.said()[-2000:]}")

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()
        self.log.close()
        if self.ends_cleanly and self.popen.returncode:
            raise RuntimeError(f"{self.popen.args[0]} ended with {self.popen.returncode}: {self.said()[-2000:]}")


def wait_for(look, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise RuntimeError(f"{what}: not within {PATIENCE} s")


class Provider(Process):
    def __init__(self, rig):
        super().__init__([PROGRAMS / "bench_provider"], rig.folder, rig.cores.load)
        self.port = int(self.first_line())

    def stats(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", "/stats")
        found = json.loads(connection.getresponse().read())
        connection.close()
        return found


class Floor(Process):
    name = "floor"

    def __init__(self, rig):
        super().__init__([PROGRAMS / "bench_floor_proxy", rig.provider.port], rig.folder, rig.cores.proxy)
        self.port = int(self.first_line())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Nginx(Process):
    """nginx cannot be given port 0, so it may need another try when somebody takes the port first."""
    name = "nginx"

    def __init__(self, rig):
        self.port = free_port()
        values = {"OWN": self.port, "PORT": rig.provider.port, "FOLDER": rig.folder, "FILES": rig.descriptors,
                  "CONNECTIONS": rig.descriptors + rig.descriptors // 8}  # it closes some when a sixteenth is left
        text = NGINX
        for name, value in values.items():
            text = text.replace(name, str(value))
        path = rig.folder / "nginx.conf"
        path.write_text(text)
        super().__init__([nginx_path(), "-p", rig.folder, "-e", rig.folder / "nginx.log", "-c", path], rig.folder,
                         rig.cores.proxy)
        wait_for(lambda: self.check() or accepts(self.port), "nginx")
        self.master, self.pid = self.pid, wait_for(lambda: children(self.popen.pid), "nginx's worker")[0]


class Parry(Process):
    name = "parry"
    ends_cleanly = True

    def __init__(self, rig, folder=None, init=INIT, cores=None, name="parry", arguments=()):
        self.name = name
        own = pathlib.Path(tempfile.mkdtemp(dir=rig.folder))
        self.folder = folder or own / "policies"
        if not folder:
            shutil.copytree(SHARE, self.folder, ignore=shutil.ignore_patterns("*_test.lua"))
        (self.folder / "init.lua").write_text(init.replace("PORT", str(rig.provider.port)))
        self.admin = str(own / "admin.sock")
        super().__init__([PARRY, "serve", "--policies", self.folder, "--listen", "127.0.0.1:0", "--admin",
                          "unix:" + self.admin, "--workers", 1, "--log-format", "json", *arguments], rig.folder,
                         cores or rig.cores.proxy, {"BENCH_KEY": "a-key-without-a-meaning"})
        self.port = int(wait_for(self._ready, "parry's ready line")["gateway"].rpartition(":")[2])

    def _ready(self):
        self.check()
        for line in self.said().splitlines():
            if '"msg":"ready"' in line:
                return json.loads(line)
        return None

    def ask(self, method, path):
        connection = http.client.HTTPConnection("parry", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(self.admin)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {body[:500]!r}")
        return json.loads(body)


class Direct:
    """No proxy: the load asks the provider itself."""
    name = "direct"
    pid = 0

    def __init__(self, rig):
        self.port = rig.provider.port

    def check(self):
        pass

    def stop(self):
        pass


class Rig:
    """A folder, the provider, and what was started with start(); ends it all."""

    def __init__(self):
        self.descriptors = raise_descriptors()
        self.cores = Cores()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="parry-bench-"))  # short: a socket's path holds 107 bytes
        os.chmod(self.folder, 0o755)  # nginx's worker may be another user
        self.running = []

    def __enter__(self):
        self.provider = Provider(self)
        self.running.append(self.provider)
        return self

    def start(self, kind, *arguments, **options):
        process = kind(self, *arguments, **options)
        self.running.append(process)
        return process

    def stop(self, process):
        self.running.remove(process)
        process.stop()

    def __exit__(self, kind, *_):
        problems = []
        for process in reversed(self.running):
            try:
                process.stop()
            except RuntimeError as problem:
                problems.append(problem)
        shutil.rmtree(self.folder, ignore_errors=True)
        if problems and kind is None:
            raise problems[0]

    def load_command(self, target, **options):
        command = [str(PROGRAMS / "bench_load"), "--port", str(target.port)]
        if target.pid:
            command += ["--pid", str(target.pid)]
        for name, value in options.items():
            if value is True:
                command.append("--" + name.replace("_", "-"))
            elif value is not None and value is not False:
                command += ["--" + name.replace("_", "-"), str(value)]
        return command

    def load(self, target, **options):
        """One run of bench_load; what it printed."""
        done = subprocess.run(self.load_command(target, **options), capture_output=True, timeout=600, check=False,
                              stdin=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, self.cores.load))
        target.check()
        if done.returncode:
            raise RuntimeError(f"the load against {target.name}: {done.stderr.decode(errors='replace')}")
        return json.loads(done.stdout)
