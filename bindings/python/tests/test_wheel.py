"""The wheel: it installs with no network, and all that it needs is in it."""

import os
import subprocess
import sys
import zipfile

import pytest

from conftest import HERE, QUESTION, init
from harness import SHARE

LIBRARY = os.environ.get("PARRY_LIBRARY")
PROGRAM = """
import parry
from parry import _ffi
assert _ffi._BUNDLED.exists() and _ffi.lib._name == str(_ffi._BUNDLED), _ffi.lib._name
with parry.Engine(init_lua={init!r}) as engine:
    answer = engine.call("/v1/chat/completions", json={question!r}, headers={{"x-sim-fault": "code=503;times=1"}})
    print(parry.__version__, answer.status, answer.attempts)
"""


@pytest.mark.skipif(not LIBRARY, reason="PARRY_LIBRARY does not say what to put into a wheel")
def test_a_clean_environment(sim, tmp_path):
    def run(*arguments, **options):
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=60, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    build = (sys.executable, HERE.parent / "wheel.py", "--library", LIBRARY, "--policies", SHARE, "--out")
    (tmp_path / "again").mkdir()
    wheel, again = run(*build, tmp_path), run(*build, tmp_path / "again")
    with open(wheel, "rb") as one, open(again, "rb") as other:
        assert one.read() == other.read()
    with zipfile.ZipFile(wheel) as contents:
        names = contents.namelist()
    assert {"parry/py.typed", "parry/_lib/libparry.so", "parry/_share/policies/retry.lua"} <= set(names)
    assert not [name for name in names if name.endswith("_test.lua")]
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet", wheel)
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    said = run(python, "-c", PROGRAM.format(init=init(sim.url), question=QUESTION), env=clean, cwd=tmp_path)
    assert said == "0.1.0 200 2"


@pytest.mark.parametrize("library, expected", [("/nowhere/libparry.so", "PARRY_LIBRARY"), ("libc.so.6", "Tried:")])
def test_a_library_that_is_none(library, expected):
    done = subprocess.run([sys.executable, "-c", "import parry"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent), "PARRY_LIBRARY": library})
    assert done.returncode == 1 and "ImportError: libparry was not found" in done.stderr and expected in done.stderr


def test_a_library_of_another_version(tmp_path):
    (tmp_path / "other.c").write_text('const char *parry_version(void) { return "0.9.1"; }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", tmp_path / "other.c"], check=True)
    done = subprocess.run([sys.executable, "-c", "import parry"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent), "PARRY_LIBRARY": str(tmp_path / "other.so")})
    assert "is libparry 0.9.1, and this package is for 0.1.x" in done.stderr
