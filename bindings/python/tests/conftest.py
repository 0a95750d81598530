"""Fixtures: one `parry sim` for all tests, engines that are closed, and hooks that catch what nobody may miss.

The package is that of the source tree, unless PARRY_PYTHON names a folder with an installed one.
"""

import os
import pathlib
import sys
import threading

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PACKAGE = os.environ.get("PARRY_PYTHON") or str(HERE.parent)
sys.path[:0] = [PACKAGE, str(ROOT / "tests" / "e2e")]

import harness  # noqa: E402
import parry  # noqa: E402

QUESTION = {"model": "sim-ok", "messages": [{"role": "user", "content": "hello"}]}


def init(url, chain='use "circuit_breaker" { failures = 50 }, use "token_refresh", '
                    'use "retry" { max_attempts = 4, base = 0.02, cap = 0.1 }, use "fallback_model"', more=""):
    """An init.lua with the simulator as provider, and one whose attempts the program makes."""
    return f"""
provider "sim" {{ base_url = "{url}/v1", dialect = "openai" }}
provider "db" {{ host = true }}
{more}
route "/v1/*" {{ to = "sim", deadline = 20, chain = {{ {chain} }} }}
route "/db/*" {{ to = "db", deadline = 20, repeatable = true, chain = {{ {chain} }} }}
"""


@pytest.fixture(scope="session")
def sim_once():
    sim = harness.Sim()
    yield sim
    sim.stop()


@pytest.fixture
def sim(sim_once):
    sim_once.reset()
    return sim_once


@pytest.fixture
def make(sim):
    """make(chain=…, more=…, **options): an engine on the simulator."""
    made = []

    def make(chain=None, more="", init_lua=None, **options):
        options.setdefault("share_dir", harness.SHARE)
        if "policy_dir" not in options:
            options["init_lua"] = init_lua or init(sim.url, *([chain] if chain else []), more=more)
        engine = parry.Engine(**options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(make):
    return make()


@pytest.fixture(autouse=True)
def nothing_unraisable(request):
    """What is raised where nobody can catch it fails the test, unless it asks for `unraisable`."""
    seen, before = [], sys.unraisablehook
    sys.unraisablehook = lambda told: seen.append(told.exc_value)
    request.node.unraisable = seen
    yield
    sys.unraisablehook = before
    assert not seen or "unraisable" in request.fixturenames, seen


@pytest.fixture
def unraisable(nothing_unraisable, request):
    """The exceptions that came to sys.unraisablehook."""
    return request.node.unraisable


@pytest.fixture(scope="session", autouse=True)
def no_thread_is_left():
    yield
    harness.wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("parry")],
                       "the package's threads to end")


def fault(spec, key="k"):
    """Headers that make the simulator fail."""
    return {"x-sim-fault": spec, "x-sim-key": key}
