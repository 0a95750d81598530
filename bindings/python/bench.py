#!/usr/bin/env python3
"""What the binding adds to a decision, in ns: bench.py [--json] [--count N]. Needs libparry (PARRY_LIBRARY), no network.

The policies are those that are shipped. It is the thread's processor time: a decision is made on the thread that asks.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

try:
    import parry
except ModuleNotFoundError:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    import parry
from parry import _events, _ffi

INIT = """
provider "p" { base_url = "http://127.0.0.1:9/v1", dialect = "openai" }
route "/v1/*" { to = "p", chain = {
  use "circuit_breaker", use "token_refresh", use "retry", use "fallback_model", use "alert" } }
"""
ROUNDS = 7


def bare(engine, count):
    """parry_decide() with structs that are filled once: ctypes' part is in it, this package's is not."""
    slot = _events.take()
    _events.fill(slot, {"status": 503, "target": "p/m"})
    decide, handle, none = _ffi.lib.parry_decide, engine._core.handle, _ffi.ReadyFunction()
    began = time.thread_time_ns()
    for _ in range(count):
        decide(handle, slot.event_ref, slot.decision_ref, none, None)
    return (time.thread_time_ns() - began) / count


def whole(engine, count):
    decide = engine.decide
    began = time.thread_time_ns()
    for _ in range(count):
        decide(status=503, target="p/m")
    return (time.thread_time_ns() - began) / count


def foreign_call(engine, count):
    """The cheapest call into the library: what ctypes takes by itself."""
    call = _ffi.lib.parry_version
    began = time.thread_time_ns()
    for _ in range(count):
        call()
    return (time.thread_time_ns() - began) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, default=20000, help="decisions of a round")
    asked = parser.parse_args()
    with parry.Engine(init_lua=INIT) as engine:
        assert engine.decide(status=503, target="p/m").again
        found = {}
        for name, measure in (("python_foreign_call_ns", foreign_call), ("python_decide_bare_ns", bare),
                              ("python_decide_ns", whole)):
            measure(engine, max(1, asked.count // 10))
            found[name] = round(statistics.median(measure(engine, asked.count) for _ in range(ROUNDS)))
    found["python_decide_overhead_ns"] = found["python_decide_ns"] - found["python_decide_bare_ns"]
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:28} {value:8}")


if __name__ == "__main__":
    main()
