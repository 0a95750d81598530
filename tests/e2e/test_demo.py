"""The first minute: `parry demo`, as `./dev run` starts it.

Shows: without a key and on this machine only, five kinds of failure (429 with Retry-After, 503, a reset, an
expired token, a model that stays down) recover before one's eyes, each with its verdict and the reason; the first
screen has at most 12 lines and ends with how to point a client at it and which file to edit, and what it says
there is true; an edit is taken over, a broken one refused with its line; calls that fail and policies that fault
have lines of their own; a second demo leaves the files of the first alone; it ends with 0 when told to.
"""

import os
import re
import signal
import subprocess

import pytest

from harness import Process, clean_environment, run_parry, send, wait_until

KINDS = {  # words that must stand in the line of each kind
    "429 with Retry-After": r"429 rate_limit .*retry in 1\.\d+ s.*retry\.lua:\d+ \"attempt 1 of \d+\"",
    "503": r"503 overloaded .*retry in .*retry\.lua:\d+ \"attempt 1 of \d+\"",
    "reset": r"network .*retry in .*retry\.lua:\d+ \"attempt 1 of \d+\"",
    "expired token": r"auth .*renew.*token_refresh\.lua:\d+ \".+\"",
    "model fallback": r"go to \S+/\S+ .*fallback_model\.lua:\d+ \".+\"",
}


def test_once_ends_when_all_five_kinds_have_recovered(tmp_path):
    done = run_parry("demo", "--once", cwd=tmp_path, timeout=70)
    assert done.returncode == 0, done.stderr
    screen = (done.stdout + done.stderr).splitlines()
    assert len(screen) <= 12, done.stderr
    for kind, pattern in KINDS.items():
        lines = [line for line in screen if re.search(pattern, line)]
        assert lines and "200 after" in lines[0], (kind, done.stderr)
    assert (tmp_path / "parry-demo" / "policies" / "retry.lua").exists()
    assert "have recovered" in screen[-1] and not any("ready:" in line for line in screen), "there is nothing to point at"


class Demo(Process):
    def __init__(self, directory, *arguments):
        before = os.getcwd()
        os.chdir(directory)
        try:
            super().__init__("demo", *arguments)
        finally:
            os.chdir(before)
        ready = self.wait_line(lambda line: line.startswith("ready:"))
        self.address = re.search(r"http://(127\.0\.0\.1:\d+)/v1", ready)[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def demo(home):
    made = Demo(home)
    yield made
    made.stop(signal.SIGINT)


def test_what_the_first_screen_says_is_true(demo, home):
    wait_until(lambda: "Ctrl-C" in demo.output, "the first screen")
    screen = demo.output
    assert len(demo.lines) <= 12, screen

    reply = send(demo.address, "POST", "/v1/chat/completions",
                 {"model": "sim-429", "messages": [{"role": "user", "content": "hi"}]})
    assert reply.status == 200 and reply.attempts == 2, reply
    claude = send(demo.address, "POST", "/v1/messages", {
        "model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]})
    assert claude.status == 200 and claude.json()["type"] == "message", claude

    try_line = re.search(r"try\s+(curl .*)", screen)[1]
    if subprocess.run(["sh", "-c", "command -v curl"], capture_output=True).returncode == 0:
        tried = subprocess.run(["sh", "-c", try_line + " -sS"], capture_output=True, text=True, timeout=30,
                               env=clean_environment())
        assert "HTTP/1.1 200" in tried.stdout, tried

    status = re.search(r"see\s+(\S.*?status.*?)\s{2,}", screen)[1]
    shown = subprocess.run(["sh", "-c", status], capture_output=True, text=True, cwd=home, timeout=30,
                           env=clean_environment())
    assert shown.returncode == 0 and "generation" in shown.stdout, (status, shown)

    edit = re.search(r"edit\s+(\S+retry\.lua)", screen)[1]
    file = home / edit
    good = file.read_text()
    file.write_text(good + "\nthis is no Lua\n")
    line = demo.wait_line(lambda line: "retry.lua:" in line and "refused" in line or "retry.lua:" in line
                          and "this" in line)
    assert re.search(r"retry\.lua:\d+", line), line
    start_at = len(demo.lines)
    file.write_text(good + "\n-- an edit\n")
    demo.wait_line(lambda line: "taken over" in line or "generation" in line, start=start_at)

    start_at = len(demo.lines)  # the README's first edit can be seen
    assert "max_attempts   = param { 4," in good
    file.write_text(good.replace("max_attempts   = param { 4,", "max_attempts   = param { 6,"))
    demo.wait_line(lambda line: "saved and taken over" in line, start=start_at)
    send(demo.address, "POST", "/v1/chat/completions",
         {"model": "sim-503", "messages": [{"role": "user", "content": "hi"}]})
    demo.wait_line(lambda line: "sim-503" in line and "attempt 1 of 6" in line, start=start_at)


def test_what_was_edited_is_kept_for_the_next_time_and_refused_when_it_is_broken(tmp_path):
    assert run_parry("demo", "--once", cwd=tmp_path, timeout=70).returncode == 0
    file = tmp_path / "parry-demo" / "policies" / "retry.lua"
    edited = file.read_text() + "\n-- mine\n"
    file.write_text(edited)
    assert run_parry("demo", "--once", cwd=tmp_path, timeout=70).returncode == 0
    assert file.read_text() == edited
    file.write_text("local = 1\n" + edited)
    done = run_parry("demo", "--once", cwd=tmp_path, timeout=70)
    assert done.returncode == 78 and "retry.lua:1" in done.stderr, done


def test_two_demos_can_run_at_a_time(demo, tmp_path):
    done = run_parry("demo", "--once", cwd=tmp_path, timeout=70)
    assert done.returncode == 0, done.stderr
    assert demo.address not in done.stderr


def test_a_second_demo_on_the_same_folder_leaves_the_first_ones_files_alone(demo, home):
    sim = home / "parry-demo" / "policies" / "lib" / "sim.lua"
    before = sim.read_text()
    second = run_parry("demo", "--once", cwd=home, timeout=70)
    assert second.returncode == 1 and "another demo is running" in second.stderr, second
    assert "--policies DIR" in second.stderr, second
    assert sim.read_text() == before
    reply = send(demo.address, "POST", "/v1/chat/completions",
                 {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    assert reply.status == 200, reply


FAULTY = """return policy {
  name = "faulty",
  on_outcome = function(_, call) if call.model == "trip" then error("out of " .. nil) end end,
}
"""


def test_calls_that_fail_and_policies_that_fault_have_lines(tmp_path):
    demo = Demo(tmp_path)
    try:
        start_at = len(demo.lines)
        reply = send(demo.address, "POST", "/v1/chat/completions",
                     {"model": "glm-9", "messages": [{"role": "user", "content": "hi"}]},
                     headers={"x-sim-fault": "code=400"})
        assert reply.status == 400, reply
        line = demo.wait_line(lambda line: "glm-9" in line, start=start_at)
        assert re.search(r"token360/glm-9 +no policy had a verdict +FAILED: 400 after 1 attempt, .*invalid_request", line)
        send(demo.address, "POST", "/v1/chat/completions",
             {"model": "glm-8", "messages": [{"role": "user", "content": "hi"}]},
             headers={"x-sim-fault": "code=503"})
        line = demo.wait_line(lambda line: "glm-8" in line, start=start_at)
        assert re.search(r"503 overloaded.*FAILED: 503 after \d attempts.* the client saw overloaded", line), line

        policies = tmp_path / "parry-demo" / "policies"
        (policies / "faulty.lua").write_text(FAULTY)
        init = policies / "init.lua"
        init.write_text(init.read_text().replace('chain = {\n    use "circuit_breaker"',
                                                 'chain = {\n    use "faulty",\n    use "circuit_breaker"', 1))
        demo.wait_line(lambda line: "saved and taken over" in line, start=start_at)
        send(demo.address, "POST", "/v1/chat/completions",
             {"model": "trip", "messages": [{"role": "user", "content": "hi"}]})
        line = demo.wait_line(lambda line: "FAULT" in line, start=start_at)
        assert re.search(r"FAULT in faulty, on_outcome: faulty\.lua:3: .*nil value", line), line
    finally:
        demo.stop(signal.SIGINT)


def test_the_shipped_policies_are_found_without_being_told_where(tmp_path):
    environment = {"PARRY_SHARE": ""}
    done = run_parry("demo", "--once", cwd=tmp_path, timeout=70, env=environment)
    assert done.returncode == 0, done.stderr
    line = b'{"id":1,"dialect":"kimi","http_status":200,"body":"{\\"errcode\\":-2002}"}\n'
    told = run_parry("classify", cwd=tmp_path, input=line, env=environment)
    assert told.returncode == 0 and '"auth"' in told.stdout, told
