"""Saved policies are taken over while calls go on, and broken ones change nothing but the report.

Shows: saving an edited retry.lua changes the next decision without a restart, also for a call that is already in
backoff; every kind of broken edit (syntax, unknown parameter, failing test, error and endless loop while loading,
...) is refused with file:line in the log, in `parry status` and by `parry reload --wait` (exit 1), while the old
generation serves on; mending it is taken over; and all this for every way to save: in place, by rename, by a
swapped symlink.
"""

import json
import os
import signal
import threading
import time

import pytest

from harness import Folder, chain, failure, ok, wait_until

SECRETS = {"KEY": "sk-reload-0123456789"}


def init_for(url):
    return f"""
provider "p" {{ base_url = "{url}/v1", dialect = "openai", auth = bearer(secret "KEY") }}
route "/v1/*" {{ to = "p", deadline = 60, chain = {chain()} }}
"""


# Answers at once and says so: what a client sees tells which version of the file decided.
def answering(word):
    return f"""
return policy {{
  name = "retry",
  params = {{ max_attempts = param {{ 4, min = 1, max = 16, doc = "d" }}, base = param {{ 0.5, doc = "d" }},
             cap = param {{ 30.0, doc = "d" }},
             jitter = param {{ "none", doc = "d" }} }},
  on_error = function(self, call, err)
    return respond {{ status = 200, body = "{word}", why = "{word}" }}
  end,
}}
"""


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim("--fault", "down=code=503")


@pytest.fixture
def gateway(start, sim):
    return start.gateway(init_for(sim.url), env=SECRETS)


def decided(gateway):
    return gateway.chat("down").text


def wait_decided(gateway, word):
    wait_until(lambda: decided(gateway) == word, f"an answer of the policy that says {word}")


def test_a_saved_edit_decides_the_next_failure(gateway):
    before = gateway.status()
    assert gateway.chat("down").status == 503
    gateway.folder.write("retry.lua", answering("first"))
    saved = time.monotonic()
    wait_decided(gateway, "first")
    assert time.monotonic() - saved < 5
    after = gateway.status()
    assert after["pid"] == before["pid"] and after["generation"]["id"] != before["generation"]["id"]
    assert after["last_reload"]["result"] == "taken over" and after["reloads_refused"] == 0
    gateway.folder.write("retry.lua", answering("second"))
    wait_decided(gateway, "second")
    serving = gateway.status()["generation"]["id"]
    gateway.wait_log("policies taken over", lambda entry: entry["generation"] == serving[:7])


def test_a_call_in_backoff_is_decided_by_the_edit_that_came_meanwhile(start):
    provider = start.provider(failure(503), failure(503), otherwise=ok("never"))
    folder = start.folder(init_for(provider.url))
    folder.replace("init.lua", "base = 0.05, cap = 0.2", "base = 1.5, cap = 1.5, jitter = \"none\"")
    gateway = start.gateway(folder, env=SECRETS)
    replies = []
    caller = threading.Thread(target=lambda: replies.append(gateway.chat("m")))
    caller.start()
    wait_until(lambda: [c["state"] for c in gateway.status()["calls"]] == ["wait"], "the call is in backoff")
    old = gateway.status()["generation"]["id"]
    folder.write("retry.lua", answering("the new one"))
    wait_until(lambda: gateway.status()["generation"]["id"] != old, "the edit is taken over")
    assert len(provider.asked) == 1, "the edit was in place before the second attempt"
    caller.join(20)
    assert replies[0].text == "the new one", replies
    assert len(provider.asked) == 2
    verdicts = gateway.verdicts(replies[0].call_id)
    assert [v["verdict"] for v in verdicts] == ["retry", "respond"]
    assert verdicts[0]["generation"] == old != verdicts[1]["generation"]


def endless(text):
    return "while true do end\n" + text


BROKEN = {
    # name: (file, edit of its text, where the finding must point, words it must hold)
    "syntax": ("retry.lua", lambda text: "local x = = 1\n" + text, "retry.lua:1", "="),
    "unknown parameter": ("init.lua", lambda text: text.replace("max_attempts = 4", "max_atempts = 4"), "init.lua:",
                          "max_attempts"),
    "parameter out of range": ("init.lua", lambda text: text.replace("max_attempts = 4", "max_attempts = 99"),
                               "init.lua:", "max_attempts"),
    "failing test": ("retry_test.lua", lambda text:
                     '\ntest("never true", function(t)\n  t:eq(1, 2)\nend)\n', "retry_test.lua:3", "never true"),
    "error while loading": ("retry.lua", lambda text: 'error("thrown on purpose")\n' + text, "retry.lua:1",
                            "thrown on purpose"),
    "endless loop while loading": ("retry.lua", endless, "retry.lua:1", ""),
    "endless loop in init.lua": ("init.lua", endless, "init.lua:1", ""),
    "eats memory while loading": ("retry.lua", lambda text:
                                  'local t = {}\nfor i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end\n' + text,
                                  "retry.lua", "memory"),
    "forbidden while loading": ("retry.lua", lambda text: "store.set('a', 1)\n" + text, "retry.lua:1", ""),
    "not there": ("retry.lua", lambda text: "os.exit(0)\n" + text, "retry.lua:1", "os"),
    "returns no policy": ("retry.lua", lambda text: "return 42\n", "retry.lua", ""),
    "policy without a file": ("init.lua", lambda text: text.replace('use "retry"', 'use "rety"'), "init.lua:", "rety"),
    "a word misspelt": ("init.lua", lambda text: text.replace("deadline", "dedline"), "init.lua:", "dedline"),
    "a library is broken": ("lib/backoff.lua", lambda text: "syntax error here\n", "lib/backoff.lua:1", ""),
    "a dialect is broken": ("dialects/openai.lua", lambda text: "return nil\n", "dialects/openai.lua", ""),
    "binary": ("retry.lua", lambda text: "\x1bLua" + text, "retry.lua", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_edit_changes_nothing_but_the_report(gateway, name):
    file, edit, where, words = BROKEN[name]
    good = gateway.folder.read(file) if (gateway.folder.path / file).exists() else None
    serving = gateway.status()["generation"]["id"]
    gateway.folder.write(file, edit(good))
    # A slow machine may look while the file is still empty, which is refused, too.
    entry = gateway.wait_log("policies refused", lambda entry: where in entry["findings"] and words in entry["findings"])
    assert entry["still_serving"] == serving[:7]

    status = gateway.status()
    assert status["generation"]["id"] == serving and status["ready"] and status["reloads_refused"] >= 1
    assert status["last_reload"]["result"] == "refused"
    found = [f for f in status["last_reload"]["report"] if f["severity"] == "error"]
    assert found and any(f["where"].startswith(where) for f in found), found
    assert gateway.metrics()["parry_config_last_reload_successful"] == 0
    assert where in gateway.command("status").stdout

    reload = gateway.command("reload", "--wait=15")
    assert reload.returncode == 1 and where in reload.stdout + reload.stderr, reload
    reply = gateway.chat("down")
    assert reply.status == 503 and reply.attempts == 4, "the old generation decides as before"
    assert all(v["generation"] == serving for v in gateway.verdicts(reply.call_id))

    if good is None:
        (gateway.folder.path / file).unlink()
    else:
        gateway.folder.write(file, good)
    reload = gateway.command("reload", "--wait=15")
    assert reload.returncode == 0, reload
    assert gateway.metrics()["parry_config_last_reload_successful"] == 1
    gateway.folder.write("retry.lua", answering("mended"))
    wait_decided(gateway, "mended")


def test_calls_go_on_while_a_broken_edit_is_looked_at(start, sim):
    """Loading runs beside the calls: an edit that loops until its budget ends delays nobody."""
    folder = start.folder(init_for(sim.url))
    gateway = start.gateway(folder, env=SECRETS)
    stop, slowest, failures = threading.Event(), [0.0], []

    def caller():
        while not stop.is_set():
            reply = gateway.chat("m")
            slowest[0] = max(slowest[0], reply.seconds)
            if reply.status != 200:
                failures.append(reply)

    callers = [threading.Thread(target=caller) for _ in range(2)]
    for thread in callers:
        thread.start()
    for n in range(3):
        start_at = len(gateway.lines)
        folder.write("retry.lua", f"-- {n}\nwhile true do end")
        gateway.wait_log("policies refused", start=start_at)
    stop.set()
    for thread in callers:
        thread.join(20)
    assert not failures and slowest[0] < 2, (failures[:3], slowest)


# --- Ways to save ---------------------------------------------------------------------------------------------


def in_place(path, text):
    path.write_text(text)


def truncated_then_written(path, text):
    with open(path, "w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def renamed_over(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.rename(temporary, path)


def as_vim(path, text):
    os.rename(path, path.with_name(path.name + "~"))
    path.write_text(text)
    path.with_name(path.name + "~").unlink()


def removed_and_made(path, text):
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize("save", [in_place, truncated_then_written, renamed_over, as_vim, removed_and_made])
def test_every_way_to_save_is_seen(gateway, save):
    for word in ("one", "two"):
        save(gateway.folder.path / "retry.lua", answering(word))
        wait_until(lambda: decided(gateway) == word, "the edit is taken over", 8)
    assert gateway.status()["faults"] == 0


def swap(link, target):
    """What a kubelet and `ln -sfn` do: a new link renamed over the old."""
    temporary = link.with_name("..tmp-link")
    temporary.symlink_to(target)
    os.rename(temporary, link)


def test_a_swapped_configmap_is_seen(start, sim, tmp_path):
    """Files are links to ..data/FILE, ..data is a link to a folder that is swapped; only `..data` ever changes."""
    root = tmp_path / "mounted"
    first, second = (Folder(tmp_path / name, init_for(sim.url)) for name in ("first", "second"))
    root.mkdir()
    for folder, name in ((first, "..2026_1"), (second, "..2026_2")):
        os.rename(folder.path, root / name)
    (root / "..2026_2" / "retry.lua").write_text(answering("swapped"))
    (root / "..data").symlink_to("..2026_1")
    for entry in sorted(os.listdir(root / "..2026_1")):
        (root / entry).symlink_to(os.path.join("..data", entry))
    gateway = start.gateway(root, env=SECRETS)
    policies = gateway.status()["generation"]["files"]
    assert gateway.chat("down").status == 503
    swap(root / "..data", "..2026_2")
    wait_until(lambda: decided(gateway) == "swapped", "the swap is taken over", 8)
    assert gateway.status()["generation"]["files"] == policies, "nothing was read twice"
    swap(root / "..data", "..2026_1")
    wait_until(lambda: gateway.chat("down").status == 503, "the swap back is taken over", 8)


def test_a_folder_that_is_itself_a_link_may_be_swapped(start, sim, tmp_path):
    for name in ("r1", "r2"):
        Folder(tmp_path / name, init_for(sim.url))
    (tmp_path / "r2" / "retry.lua").write_text(answering("release 2"))
    (tmp_path / "current").symlink_to("r1")
    gateway = start.gateway(tmp_path / "current", env=SECRETS)
    assert gateway.chat("down").status == 503
    swap(tmp_path / "current", "r2")
    wait_until(lambda: decided(gateway) == "release 2", "the swap is taken over", 8)


# --- On demand ------------------------------------------------------------------------------------------------


def test_without_watching_only_demand_takes_over(start, sim):
    folder = start.folder(init_for(sim.url))
    gateway = start.gateway(folder, "--watch=off", env=SECRETS)
    assert gateway.command("reload", "--wait").returncode == 0  # unchanged
    folder.write("retry.lua", answering("on demand"))
    assert gateway.chat("down").status == 503
    reload = gateway.command("reload", "--wait", "--json")
    assert reload.returncode == 0 and json.loads(reload.stdout)["result"] == "taken over"
    assert decided(gateway) == "on demand"
    folder.write("retry.lua", answering("on signal"))
    gateway.process.send_signal(signal.SIGHUP)
    wait_decided(gateway, "on signal")


def test_the_policies_own_tests_gate_a_reload(start, sim):
    """With the shipped tests beside them, an edit that breaks what they say is refused, and they name the line."""
    folder = start.folder(init_for(sim.url), tests=True)
    gateway = start.gateway(folder, env=SECRETS)
    assert gateway.status()["generation"]["tests"] > 20
    serving = gateway.status()["generation"]["id"]
    folder.replace("retry.lua", "return retry {", "return fail {")
    entry = gateway.wait_log("policies refused", seconds=40)
    assert "retry_test.lua:" in entry["findings"], entry
    assert gateway.status()["generation"]["id"] == serving
    reload = gateway.command("reload", "--wait=40", "--json")
    report = json.loads(reload.stdout)
    assert reload.returncode == 1 and report["result"] == "refused" and report["generation"] == serving
