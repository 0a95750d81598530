"""The service as its unit has it: started, reloaded and ended by the unit's own command lines, with a made-up manager.

The folder is /etc/parry/policies of a fresh installation: one init.lua, the policies it uses are those that came with parry.
What systemd itself thinks of the units: tests/install/units.sh.
"""

import contextlib
import os
import pathlib
import re
import shlex
import socket
import subprocess

import pytest

import harness
from harness import wait_until

PACKAGING = pathlib.Path(__file__).resolve().parents[2] / "core" / "packaging"


class Unit:
    """The settings of parry.service, installed below `directory`, where %t, %S and the policies are, too."""

    def __init__(self, directory):
        self.directory = directory
        text = (PACKAGING / "parry.service.in").read_text(encoding="utf-8")
        for name, value in {"@BINDIR@/parry": harness.PARRY, "@SYSCONFDIR@": directory / "etc",
                            "%S": directory / "state", "%t": directory / "run"}.items():
            text = text.replace(name, str(value))
        self.settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", text))

    def command(self, name):
        words = shlex.split(self.settings[name])
        return [word for word in words if word != "$PARRY_OPTIONS"]

    def seconds(self, name):
        return float(self.settings[name])


class Service:
    """Started as systemd would start it; on a port of the kernel's choice, as /etc/default/parry could say."""

    def __init__(self, unit, env=None):
        self.unit = unit
        self.environment = harness.clean_environment(env)
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(unit.directory / "notify"))
        self.notices.settimeout(0.05)
        self.heard = ""
        self.process = subprocess.Popen(
            [*unit.command("ExecStart"), "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE,
            env={**self.environment, "NOTIFY_SOCKET": str(unit.directory / "notify"),
                 "WATCHDOG_USEC": str(int(unit.seconds("WatchdogSec") * 1e6))})

    def wait(self, word):
        def look():
            with contextlib.suppress(TimeoutError):
                while True:
                    self.heard += self.notices.recv(4096).decode() + "\n"
            return word in self.heard
        wait_until(look, f"it says {word}; it said {self.heard}")

    def reload(self):
        return subprocess.run(self.unit.command("ExecReload"), env=self.environment, capture_output=True, text=True,
                              timeout=60)

    def end(self):
        self.process.terminate()
        code = self.process.wait(20)
        said = self.process.stderr.read().decode()
        self.close()
        assert not harness.SANITIZER.search(said), said
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        self.notices.close()


@pytest.fixture
def unit(tmp_path):
    for folder in ("etc/parry/policies", "state", "run/parry"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/parry/policies/init.lua").write_text((PACKAGING / "init.lua").read_text(encoding="utf-8"))
    return Unit(tmp_path)


@pytest.fixture
def service(unit):
    service = Service(unit, {"OPENAI_API_KEY": "k" * 20})
    yield service
    service.close()


def test_a_refused_policy_fails_the_reload_and_harms_nothing(unit, service):
    init = unit.directory / "etc/parry/policies/init.lua"
    good = init.read_text(encoding="utf-8")
    service.wait("READY=1")
    assert "serving" in service.heard
    done = service.reload()
    assert done.returncode == 0, done.stderr

    init.write_text(good.replace("max_attempts = 4", "max_attempts = 40"), encoding="utf-8")
    done = service.reload()
    assert done.returncode == 1, done.stderr
    assert re.search(r"init\.lua:\d+: retry: max_attempts must be 1\.\.16, got 40", done.stderr), done.stderr
    assert service.process.poll() is None

    init.write_text(good.replace("max_attempts = 4", "max_attempts = 5"), encoding="utf-8")
    done = service.reload()
    assert done.returncode == 0, done.stderr
    assert os.stat(unit.directory / "state/parry/last-good.policies").st_mode & 0o777 == 0o600
    assert service.end() == 0


def test_what_the_unit_says_fits_what_the_program_does(unit):
    settings = unit.settings
    drain = float(re.search(r"--drain-timeout SECONDS .*\((\d+)\)", harness.run_parry("serve", "--help").stdout)[1])
    assert unit.seconds("TimeoutStopSec") > drain
    assert settings["Type"] == "notify"
    # What a restart cannot mend ends with these codes, and is not started again.
    final = settings["RestartPreventExitStatus"].split()
    start = unit.command("ExecStart")
    (unit.directory / "etc/parry/policies/init.lua").write_text("nonsense(", encoding="utf-8")
    refused = subprocess.run([*start, "--listen", "127.0.0.1:0"], env=harness.clean_environment(), capture_output=True,
                             timeout=60)
    assert str(refused.returncode) in final and refused.returncode == 78
    mistaken = subprocess.run([*start, "--nonsense"], env=harness.clean_environment(), capture_output=True, timeout=60)
    assert str(mistaken.returncode) in final and mistaken.returncode == 2
    # A folder of the dynamic user's in each place that the command line names.
    for kind, folder in (("State", "state"), ("Runtime", "run")):
        named = settings[f"{kind}Directory"]
        assert any(f"{unit.directory / folder / named}" in word for word in start), named


def test_the_socket_unit_opens_what_the_program_takes():
    socket_unit = (PACKAGING / "parry.socket.in").read_text(encoding="utf-8")
    assert "\nFileDescriptorName=gateway\n" in socket_unit
    address = re.search(r"(?m)^ListenStream=(.*)$", socket_unit)[1]
    assert address in harness.run_parry("serve", "--help").stdout, "the same place with and without it"
