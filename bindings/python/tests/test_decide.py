"""Decisions, reports, events and host functions: what happens where parry makes no call."""

import asyncio
import json
import threading

import pytest

import harness
import parry
from conftest import init


def folder(tmp_path, sim, chain="use \"asks\"", **files):
    """A folder of policies with files of the test's own."""
    made = harness.Folder(tmp_path / "policies", init(sim.url, chain=chain))
    for name, text in files.items():
        made.write(f"{name}.lua", text)
    return made


def policy(handlers):
    return 'return policy { name = "asks", %s }\n' % handlers


ASKS = policy("""
  on_error = function(self, call, err)
    local plan, problem = host.call("plan_of", { user = err.message, number = 7 })
    if not plan then return fail { category = "server", status = 500, why = problem.message } end
    return retry { after = 1, why = plan.name }
  end""")


def test_a_failure_of_ones_own(make):
    engine = make(chain='use "retry" { max_attempts = 3 }')
    told = engine.decide(status=503, target="sim/sim-ok", retry_after=7.5)
    assert told.action is parry.Action.RETRY and told.again and told.after >= 7.5
    assert told.category == "overloaded" and told.policy == "retry"
    assert engine.decide(status=400, target="sim/sim-ok").action is parry.Action.FAIL
    assert engine.decide(exception=ConnectionResetError("gone"), target="db/x").category == "network"
    assert engine.decide(exception=TimeoutError(), target="db/x", category="billing").category == "billing"
    assert engine.decide(status=429, headers={"retry-after": "3"}, target="sim/x").after >= 3
    body = json.dumps({"error": {"code": "insufficient_quota", "message": "m"}})
    assert engine.decide(status=429, body=body, target="sim/sim-ok").category == "billing"
    assert engine.decide(status=503, target="sim/x", attempt=3).action is parry.Action.FAIL


def test_what_is_wrong_is_said(engine):
    with pytest.raises(TypeError, match="statuss"):
        engine.decide(statuss=503)
    with pytest.raises(parry.ArgumentError):
        engine.decide(status=503, route="/nowhere")


def test_threads_decide_at_the_same_time(make):
    engine = make(chain='use "retry" { max_attempts = 3 }', deciders=2)
    results = []

    def work():
        results.extend(engine.decide(status=503, target="sim/x").action for _ in range(300))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [parry.Action.RETRY] * 1200


def test_an_event_and_an_answer(make, sim, tmp_path):
    made = folder(tmp_path, sim, asks=policy("""
  on_event = function(self, event)
    if event.name == "queue.full" then
      return respond { status = 202, body = { waits = event.fields.length } }
    end
  end"""))
    engine = make(policy_dir=made.path)
    told = engine.decide("queue.full", fields={"length": 12})
    assert told.action is parry.Action.RESPOND and told.status == 202 and json.loads(told.body) == {"waits": 12}
    assert engine.decide("other").action is parry.Action.FAIL


@pytest.mark.parametrize("threads", [1, 0])
def test_a_policy_asks_the_program(make, sim, tmp_path, threads):
    engine = make(policy_dir=folder(tmp_path, sim, asks=ASKS).path, threads=threads)
    seen, may_answer = [], threading.Event()
    may_answer.set()

    @engine.function("plan_of")
    def plan_of(arguments):
        seen.append(threading.current_thread())
        may_answer.wait(20)
        return {"name": f"plan of {arguments['user']} {arguments['number']}"}

    assert plan_of({"user": "x", "number": 1})["name"] == "plan of x 1"  # still a function
    told = engine.decide(status=503, message="ada", target="db/x", wait=True)
    assert told.action is parry.Action.RETRY and told.why == "plan of ada 7"
    assert seen[-1] is not threading.current_thread()
    may_answer.clear()  # or it may have answered before it would have to be waited for
    assert engine.decide(status=503, message="ada", target="db/x").action is parry.Action.FAIL  # does not wait
    may_answer.set()

    async def later():
        return await engine.adecide(status=503, message="bob", target="db/x")
    assert asyncio.run(later()).why == "plan of bob 7"


def test_an_async_function_runs_in_the_loop(make, sim, tmp_path):
    engine = make(policy_dir=folder(tmp_path, sim, asks=ASKS).path)

    async def main():
        loop = asyncio.get_running_loop()

        @engine.function("plan_of")
        async def plan_of(arguments):
            await asyncio.sleep(0)
            return {"name": str(asyncio.get_running_loop() is loop)}

        told = await asyncio.gather(*(engine.adecide(status=503, message="a", target="db/x") for _ in range(5)))
        assert [one.why for one in told] == ["True"] * 5

    asyncio.run(main())
    # Without a loop of the program's it has one of this package's.
    assert engine.decide(status=503, message="a", target="db/x", wait=True).why == "False"


def test_a_quick_function_makes_nobody_wait(make, sim, tmp_path):
    engine = make(policy_dir=folder(tmp_path, sim, asks=ASKS).path)
    here = []

    @engine.function("plan_of", any_thread=True)
    def plan_of(arguments):
        here.append(threading.current_thread())
        return {"name": "quick"}

    assert engine.decide(status=503, message="a", target="db/x").why == "quick"
    assert here == [threading.current_thread()]
    with pytest.raises(TypeError):
        @engine.function("other", any_thread=True)
        async def other(arguments):
            pass


@pytest.mark.parametrize("any_thread", [False, True])
def test_a_function_that_throws_fails_the_question(make, sim, tmp_path, unraisable, any_thread):
    engine = make(policy_dir=folder(tmp_path, sim, asks=ASKS).path)

    @engine.function("plan_of", any_thread=any_thread)
    def plan_of(arguments):
        raise KeyError("ada")

    told = engine.decide(status=503, message="a", target="db/x", wait=True)
    assert told.action is parry.Action.FAIL and "KeyError: 'ada'" in told.why
    harness.wait_until(lambda: [type(error) for error in unraisable] == [KeyError], "the hook to be told")

    @engine.function("plan_of", any_thread=any_thread)
    def expected(arguments):
        raise parry.HostFunctionError("nobody by that name")

    assert "nobody by that name" in engine.decide(status=503, message="a", target="db/x", wait=True).why
    assert len(unraisable) == 1

    @engine.function("plan_of", any_thread=any_thread)
    def no_json(arguments):
        return object()

    assert "TypeError" in engine.decide(status=503, message="a", target="db/x", wait=True).why
    harness.wait_until(lambda: len(unraisable) == 2, "the hook to be told")
    engine.register("plan_of", None)
    assert engine.decide(status=503, message="a", target="db/x", wait=True).why not in ("", "nobody by that name")


def test_names_are_checked(engine):
    with pytest.raises(parry.ArgumentError):
        engine.register("no spaces", lambda value: value)


def test_policies_hear_of_what_is_emitted_and_reported(make, sim, tmp_path):
    made = folder(tmp_path, sim, chain='use "asks", use "circuit_breaker" { failures = 3, cooldown = 60 }',
                  asks=policy("""
  on_event = function(self, event)
    if event.name == "db.failover" then host.call("heard", { cluster = event.fields.cluster }) end
  end"""))
    engine = make(policy_dir=made.path)
    heard, told = [], threading.Semaphore(0)

    @engine.function("heard")
    def hear(arguments):
        heard.append(arguments)
        told.release()

    engine.emit("db.failover", cluster="main", seconds=3)
    # The policy is in the chains of two routes, and both hear of it: whoever looks too early sees one.
    assert told.acquire(timeout=20) and told.acquire(timeout=20) and heard == [{"cluster": "main"}] * 2
    with pytest.raises(TypeError):
        engine.emit("x", thing=object())
    engine.report(ok=True, target="sim/other", seconds=0.01)
    for _ in range(3):
        engine.report(ok=False, target="sim/sim-ok", status=503)
    # The breaker knows, and keeps calls away.
    with pytest.raises(parry.CallError) as caught:
        engine.call("/v1/chat/completions", json={"model": "sim-ok", "messages": []})
    assert caught.value.code == "circuit_open"
