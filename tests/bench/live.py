"""Policies that change under load: from a save to the first answer that shows it, and what callers notice."""

import http.client
import shutil
import statistics
import threading
import time

from rig import INIT, PATIENCE, SHARE, Parry, Rig

DEBOUNCE = 0.1  # the reloader's: so long must the folder be quiet
RATE = 500      # requests per second while reloading

NAMES = ("circuit_breaker", "token_refresh", "retry", "fallback_model", "alert")

# Its answer says which version of the file serves.
MARKER = 'return policy {{ name = "marker", on_request = function() return respond {{ status = 200, body = "{}" }} end }}\n'

ROUTES = INIT.replace('use "alert",', 'use "alert",\n    ' + ", ".join(f'use "{name}2"' for name in NAMES[1:]) + ",") + """
route "/marker" { to = "token360", chain = { use "marker" } }
"""


def ten_policies(folder, tests):
    """The five shipped ones, four of them again under other names, and the marker."""
    shutil.copytree(SHARE, folder, ignore=None if tests else shutil.ignore_patterns("*_test.lua"))
    for name in NAMES[1:]:
        for path in (folder / f"{name}.lua", folder / f"{name}_test.lua"):
            if path.exists():
                text = path.read_text().replace(f'name = "{name}"', f'name = "{name}2"')
                text = text.replace(f't:use("{name}"', f't:use("{name}2"')
                (folder / path.name.replace(name, name + "2", 1)).write_text(text)
    if (folder / "init_test.lua").exists():
        (folder / "init_test.lua").unlink()  # it is about the shipped init.lua
    (folder / "marker.lua").write_text(MARKER.format(0))


def save(folder, number):
    """As an editor does: another file, renamed over the old one. Returns the moment of the rename."""
    temporary = folder / ".marker.lua.new"
    temporary.write_text(MARKER.format(number))
    before = time.monotonic()
    temporary.rename(folder / "marker.lua")
    return before


class Poller:
    """Asks again and again on one connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(self):
        self.connection.request("GET", "/marker")
        return self.connection.getresponse().read().decode()

    def until(self, wanted):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.ask() == wanted:
                return time.monotonic()
            time.sleep(0.001)  # or the asking would take a core from the reload
        raise RuntimeError(f"version {wanted} of marker.lua does not serve after {PATIENCE} s")


def save_to_live(rig, tests, count):
    """Milliseconds from rename() to the first answer of the new policy, less the debounce."""
    folder = rig.folder / f"policies_{tests}"
    ten_policies(folder, tests)
    parry = rig.start(Parry, folder=folder, init=ROUTES, cores=rig.cores.all, name=f"live {tests}")
    poller = Poller(parry.port)
    poller.until("0")
    found = []
    for number in range(1, count + 1):
        saved = save(folder, number)
        found.append((poller.until(str(number)) - saved - DEBOUNCE) * 1000)
    rig.stop(parry)
    return found


class Reloads(threading.Thread):
    """Saves and asks for a reload, as fast as they are taken over."""

    def __init__(self, parry, folder):
        super().__init__(daemon=True)
        self.parry, self.folder = parry, folder
        self.stopping = threading.Event()
        self.count, self.problem = 0, None

    def run(self):
        try:
            while not self.stopping.is_set():
                save(self.folder, self.count + 1)
                answer = self.parry.ask("POST", "/api/v1/reload?wait=10")
                if answer.get("result") not in ("taken over", "unchanged"):
                    raise RuntimeError(f"a reload ended with {answer}")
                self.count += answer["result"] == "taken over"
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as problem:
            self.problem = problem

    def end(self):
        self.stopping.set()
        self.join()
        if self.problem:
            raise RuntimeError(f"reloading: {self.problem}")
        return self.count


def reloading(options):
    """Latency at a fixed rate, counted from when a request was due; quiet and reloading slices take turns."""
    slices = {"quiet": {"p50": [], "p99": []}, "busy": {"p50": [], "p99": []}}
    reloads = failed = 0
    seconds = 0.5 if options.smoke else 2
    with Rig() as rig:
        folder = rig.folder / "policies"
        ten_policies(folder, tests=False)
        parry = rig.start(Parry, folder=folder, init=ROUTES, cores=rig.cores.all,
                          arguments=("--watch", "off", "--log-level", "warn"))
        for _ in range(options.rounds):
            for name, found in slices.items():
                busy = Reloads(parry, folder) if name == "busy" else None
                if busy:
                    busy.start()
                run = rig.load(parry, rate=RATE, connections=32, seconds=seconds, warm=0.3)
                reloads += busy.end() if busy else 0
                failed += run["count"] - run["ok"]
                for key, values in found.items():
                    values.append(run[key])
    if not reloads or failed:
        raise RuntimeError(f"{reloads} reloads, {failed} failed calls")
    return {"rate": RATE, **slices, "reloads": reloads, "failed": failed,
            "ratio": statistics.median(a / b for a, b in zip(slices["busy"]["p99"], slices["quiet"]["p99"]))}
