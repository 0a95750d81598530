"""Deployments that replace the policies from outside, while calls go on.

Shows: a kubelet that swaps a ConfigMap again and again under load costs no call and never lets a mixture of two
versions serve or be refused; releases that are swapped by renaming a folder far above the policies, and policies that
are links into a shared folder, are taken over at once and not by the poll.
"""

import os
import shutil
import threading

import pytest

from harness import Folder, wait_until
from test_reload import SECRETS, answering, init_for, swap

AT_ONCE = 6  # seconds: less than the poll's 10


@pytest.fixture(scope="module")
def sim(start_once):
    return start_once.sim("--fault", "down=code=503")


def decides(gateway, word):
    wait_until(lambda: gateway.chat("down").text == word, f"an answer of the policy that says {word}", AT_ONCE)


def test_a_kubelet_swaps_under_load(start, sim, tmp_path):
    """A mixture of two versions fails its own test: it wants the version that the library names."""
    root, versions = tmp_path / "mounted", 40
    root.mkdir()

    def project(version):
        """What a kubelet does: a new folder, one renamed link, the old folder removed."""
        made = Folder(tmp_path / f"v{version}", init_for(sim.url))
        made.write("retry.lua", answering(f"v{version}"))
        made.write("lib/version.lua", f"return {version}\n")
        made.write("retry_test.lua", f'test("one version", function(t) t:eq(require "lib.version", {version}) end)\n')
        os.rename(made.path, root / f"..{version}")
        swap(root / "..data", f"..{version}")
        if version:
            shutil.rmtree(root / f"..{version - 1}")

    project(0)
    for entry in sorted(os.listdir(root / "..0")):
        (root / entry).symlink_to(os.path.join("..data", entry))
    gateway = start.gateway(root, env=SECRETS)
    stop, failures, answers = threading.Event(), [], set()

    def caller():
        while not stop.is_set():
            reply = gateway.chat("down")
            answers.add(reply.text)
            if reply.status != 200:
                failures.append(reply)

    callers = [threading.Thread(target=caller) for _ in range(2)]
    for thread in callers:
        thread.start()
    try:
        for version in range(1, versions):
            project(version)
            if version % 8 == 0:  # in between faster than it can follow
                wait_until(lambda: f"v{version}" in answers, f"version {version} decides", AT_ONCE)
        wait_until(lambda: f"v{versions - 1}" in answers, "the last version decides", AT_ONCE)
    finally:
        stop.set()
        for thread in callers:
            thread.join(20)
    assert not failures, failures[:3]
    status = gateway.status()
    assert status["reloads_refused"] == 0 and status["faults"] == 0, status


def test_a_release_far_above_is_swapped(start, sim, tmp_path):
    for name, word in (("app", "one"), ("next", "two"), ("third", "three")):
        Folder(tmp_path / name / "etc" / "policies", init_for(sim.url)).write("retry.lua", answering(word))
    gateway = start.gateway(tmp_path / "app" / "etc" / "policies", env=SECRETS)
    decides(gateway, "one")
    os.rename(tmp_path / "app", tmp_path / "old")
    os.rename(tmp_path / "next", tmp_path / "app")
    decides(gateway, "two")
    shutil.rmtree(tmp_path / "app")
    gateway.wait_log("policies refused")
    decides(gateway, "two")  # nothing there: what served serves
    os.rename(tmp_path / "third", tmp_path / "app")
    decides(gateway, "three")


def test_a_policy_that_is_a_link_is_edited_where_it_really_is(start, sim, tmp_path):
    folder = start.folder(init_for(sim.url))
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "retry.lua").write_text(answering("one"))
    (folder.path / "retry.lua").unlink()
    (folder.path / "retry.lua").symlink_to(shared / "retry.lua")
    gateway = start.gateway(folder, env=SECRETS)
    decides(gateway, "one")
    for word in ("two", "three"):
        (shared / "retry.lua").write_text(answering(word))
        decides(gateway, word)
