"""Engines that are made, refused, edited, forked, dropped and closed; programs that end; callbacks that throw."""

import asyncio
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref

import pytest

import harness
import parry
from conftest import PACKAGE, QUESTION, fault, init

PATH = "/v1/chat/completions"


def test_refused_policies_say_why(make):
    with pytest.raises(parry.PolicyError) as caught:
        make(init_lua='route "/v1/*" { to = "nobody", chain = { use "retry" { max_attempts = 40 } } }')
    assert any("init.lua:1" in line for line in caught.value.findings) and "max_attempts" in str(caught.value)


@pytest.mark.parametrize("wrong", [{}, {"policy_dir": "a", "init_lua": "b"}, {"init_lua": "", "threads": 256},
                                   {"init_lua": "", "log_level": "loud"}])
def test_options_that_are_wrong(wrong):
    with pytest.raises(parry.ArgumentError):
        parry.Engine(**wrong)


def test_status_and_metrics(engine):
    engine.call(PATH, json=QUESTION)
    status = engine.status()
    assert len(status.generation) >= 12 and status.generation == engine.generation and status.policies >= 4
    assert status.version == parry.library_version and status.open == 0 and status.loaded_at > 1.6e9
    metrics = engine.metrics()
    assert metrics.find("parry_attempts_total", target="sim/sim-ok", category="ok") == 1
    text = metrics.prometheus()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(metrics) and text.count("# TYPE parry_attempts_total counter\n") == 1
    assert engine.findings == [] and engine.generation[:12] in repr(engine)


def test_an_edit_on_disk_changes_the_decisions_of_a_running_process(make, sim, tmp_path):
    folder = harness.Folder(tmp_path / "policies", init(sim.url, chain='use "retry" { max_attempts = 3 }'))
    told, heard = [], threading.Semaphore(0)

    def reloaded(info):
        told.append(info)
        heard.release()

    engine = make(policy_dir=folder.path, watch=True, reloaded=reloaded)
    assert engine.decide(status=503, target="sim/x").action is parry.Action.RETRY
    before = engine.generation
    folder.replace("init.lua", "max_attempts = 3", "max_attempts = 1")
    assert heard.acquire(timeout=20)
    assert told[0].ok and told[0].generation == engine.generation != before
    assert engine.decide(status=503, target="sim/x").action is parry.Action.FAIL
    folder.replace("init.lua", "max_attempts = 1", "max_attempts = 40")
    assert heard.acquire(timeout=20)
    assert not told[1].ok and "max_attempts" in told[1].findings[0] and engine.status().reloads_refused == 1
    assert engine.decide(status=503, target="sim/x").action is parry.Action.FAIL


@pytest.mark.parametrize("threads", [0, 1])
def test_reload(make, sim, tmp_path, threads):
    folder = harness.Folder(tmp_path / "policies", init(sim.url))
    engine = make(policy_dir=folder.path, threads=threads)
    before = engine.generation
    folder.write("init.lua", init(sim.url, chain='use "retry" { max_attempts = 2 }'))
    engine.reload()
    assert engine.generation != before
    folder.write("init.lua", "route 5")
    with pytest.raises(parry.PolicyError, match="init.lua:1"):
        asyncio.run(engine.areload())
    assert engine.call(PATH, json=QUESTION).ok and engine.findings


# ---- telling -----------------------------------------------------------------------------------------------------------


def test_logs_go_to_a_callable_or_a_logger(make, caplog):
    lines, found = [], threading.Event()

    def log(line):
        lines.append(line)
        if line["msg"] == "verdict":
            found.set()

    make(log=log).call(PATH, json=QUESTION, headers=fault("code=503;times=1"))
    assert found.wait(20) and all({"level", "msg"} <= set(line) for line in lines)
    logger = logging.getLogger("test.parry")
    with caplog.at_level(logging.INFO, "test.parry"):
        make(log=logger).call(PATH, json=QUESTION, headers=fault("code=503;times=1", "2"))
        harness.wait_until(lambda: [r for r in caplog.records if r.getMessage().startswith("verdict ")], "a record")
    assert any(record.parry.get("policy") == "retry" for record in caplog.records)


def test_alerts(make):
    told, heard = [], threading.Event()

    def alert(one):
        told.append(one)
        heard.set()

    engine = make(chain='use "alert" { to = "ops", rules = { { category = "auth", count = 1, window = 60, severity = "critical" } } }',
                  more='sink "ops" { webhook = secret "HOOK" }', secrets={"HOOK": "http://127.0.0.1:9/"}, alert=alert)
    with pytest.raises(parry.AuthError):
        engine.call(PATH, json=QUESTION, headers=fault("code=401"))
    assert heard.wait(20) and told[0].sink == "ops" and told[0].severity == "critical" and not told[0].resolved


def test_callbacks_that_throw_are_told_and_harm_nothing(make, unraisable):
    class Mine(Exception):
        pass

    def log(line):
        raise Mine(line["msg"])

    engine = make(log=log)
    assert engine.call(PATH, json=QUESTION, headers=fault("code=503;times=1")).ok
    harness.wait_until(lambda: unraisable, "the hook to be told")
    assert {type(error) for error in unraisable} == {Mine}
    assert engine.call(PATH, json=QUESTION).ok


# ---- ends --------------------------------------------------------------------------------------------------------------


def test_use_after_close(engine):
    engine.close()
    engine.close()
    assert engine.closed and "closed" in repr(engine)
    for use in (lambda: engine.call(PATH, json=QUESTION), lambda: engine.decide(status=503), engine.status,
                engine.metrics, engine.reload, lambda: engine.emit("x"), lambda: engine.report(ok=True, target="x"),
                lambda: engine.register("f", lambda value: value), lambda: engine.generation,
                lambda: engine.guard(target="db/x")(lambda: 1)()):
        with pytest.raises(parry.ClosedError):
            use()

    async def later():
        with pytest.raises(parry.ClosedError):
            await engine.acall(PATH, json=QUESTION)
    asyncio.run(later())


@pytest.mark.parametrize("threads", [0, 1])
def test_closing_ends_what_is_open(make, sim, threads):
    engine = make(threads=threads)
    caught = []

    def work():
        try:
            engine.call(PATH, json=QUESTION, headers=fault("hang"))
        except parry.Error as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    harness.wait_until(lambda: sim.stats()["total"], "the provider to be asked")
    with engine:
        pass
    thread.join(20)
    assert not thread.is_alive() and type(caught[0]) is parry.CancelledError_


def test_closing_wakes_tasks(make, sim):
    async def main():
        async with make() as engine:
            task = asyncio.create_task(engine.acall(PATH, json=QUESTION, headers=fault("hang")))
            await asyncio.get_running_loop().run_in_executor(
                None, harness.wait_until, lambda: sim.stats()["total"], "the provider to be asked")
        with pytest.raises(parry.CancelledError_):
            await task

    asyncio.run(main())


def test_closing_from_a_callback_is_refused(make):
    caught, done = [], threading.Event()

    def log(line):
        for use in (lambda: engine.close(), lambda: engine.call(PATH, json=QUESTION)):
            try:
                use()
            except parry.ReentrantError as error:
                caught.append(error)
        done.set()

    engine = make(log=log)
    engine.call(PATH, json=QUESTION, headers=fault("code=503;times=1"))
    assert done.wait(20) and len(caught) >= 2


def test_an_engine_that_is_dropped_is_closed(make, sim):
    from parry._core import live
    engine = parry.Engine(init_lua=init(sim.url), share_dir=harness.SHARE)
    engine.call(PATH, json=QUESTION)
    gone, core = weakref.ref(engine), engine._core
    del engine
    gc.collect()
    assert gone() is None
    harness.wait_until(lambda: core.closed and core not in live, "the engine to be closed")


def test_keyboard_interrupt_ends_a_blocking_call(make, sim):
    engine = make()

    def interrupt():
        harness.wait_until(lambda: sim.stats()["total"], "the provider to be asked")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        engine.call(PATH, json=QUESTION, headers=fault("hang"))
    harness.wait_until(lambda: engine.status().open == 0, "the call to end")


def test_a_forked_child_is_told(make):
    engine = make()
    engine.call(PATH, json=QUESTION)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for use in (lambda: engine.call(PATH, json=QUESTION), lambda: engine.decide(status=503), engine.status):
            try:
                use()
                said.append("nothing")
            except parry.ForkedError as error:
                said.append("forked" if "post_fork" in str(error) else str(error))
            except BaseException as error:
                said.append(repr(error))
        try:
            engine.close()
        except BaseException as error:
            said.append(repr(error))
        os.write(write, " ".join(said).encode())
        os._exit(0)
    os.close(write)
    assert os.read(read, 4096) == b"forked forked forked"
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0
    assert engine.call(PATH, json=QUESTION).ok  # the parent's goes on


PROGRAM = """
import asyncio, sys, threading, parry
engine = parry.Engine(init_lua={init!r}, share_dir={share!r}, threads={threads}, log=lambda line: None)
{rest}
print("end", flush=True)
"""
ENDS = {
    "nothing": "pass",
    "a call made": f"assert engine.call({PATH!r}, json={QUESTION!r}).ok",
    "a call open in a daemon thread": f"""
def work():
    try: engine.call({PATH!r}, json={QUESTION!r}, headers={{"x-sim-fault": "hang"}})
    except parry.CancelledError_: pass
threading.Thread(target=work, daemon=True).start()
while not engine.status().open: pass""",
    "a stream open": f"stream = engine.stream({PATH!r}, json={{**{QUESTION!r}, 'stream': True}}, "
                     "headers={'x-sim-fault': 'stall-after'})\nnext(stream)",
    "asyncio.run": f"assert asyncio.run(engine.acall({PATH!r}, json={QUESTION!r})).ok",
    "a function that never returns": """
@engine.function("f")
def f(arguments): threading.Event().wait()""",
    "sys.exit": "print('end', flush=True); sys.exit(0)",
}


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("rest", ENDS)
def test_programs_end(sim, rest, threads):
    program = PROGRAM.format(init=init(sim.url), share=str(harness.SHARE), threads=threads, rest=ENDS[rest])
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=30,
                          env={**os.environ, "PYTHONPATH": PACKAGE})
    assert done.returncode == 0 and done.stdout == "end\n" and not done.stderr, done.stderr


def test_many_engines(sim):
    """More than there are places for freed handles; descriptors and threads go back."""
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for number in range(70):
        with parry.Engine(init_lua=init(sim.url, chain='use "retry"'), share_dir=harness.SHARE, threads=number % 2) as engine:
            assert engine.decide(status=503, target="sim/x").again
    assert descriptors() == before


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_nothing_is_kept_of_calls(make, tmp_path):
    """PARRY_LEAK_CALLS=100000 for the long form."""
    calls = int(os.environ.get("PARRY_LEAK_CALLS", "1500"))
    engine = make(chain='use "retry" { max_attempts = 3 }')

    @engine.guard(target="db/x")
    def load():
        return 1

    async def some(count):
        for _ in range(count):
            await engine.acall(PATH, json=QUESTION)

    def work(count):
        for number in range(count // 3):
            engine.call(PATH, json=QUESTION)
            engine.decide(status=503, target="sim/x", headers={"a": "b"}, body="x" * 1000, message=str(number))
            load()
        asyncio.run(some(count // 3))
        with engine.stream(PATH, json={**QUESTION, "stream": True}) as stream:
            next(stream)
        gc.collect()

    work(max(600, calls // 10))
    from parry._core import _registry
    before, things = resident(), len(gc.get_objects())
    work(calls)
    harness.wait_until(lambda: engine.status().open == 0, "all calls to end")
    assert len(_registry) <= 2  # of what this engine is registered with
    assert resident() - before < 2_000_000 + calls * 10, (before, resident())
    assert len(gc.get_objects()) - things < 500
