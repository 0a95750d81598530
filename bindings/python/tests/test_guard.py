"""Functions of the program's own under the policies."""

import asyncio
import threading

import pytest

import parry
from conftest import init

LIMIT = 'use "retry" { max_attempts = 3, base = 0.01, cap = 0.05 }, use "fallback_model" { models = { %s } }'
FALLBACK = LIMIT % '["primary"] = { "db/replica" }'


@pytest.fixture
def engine(make):
    return make(chain=FALLBACK)


class Broken(Exception):
    pass


def test_it_is_tried_again(engine):
    seen = []

    @engine.guard(target="db/other")
    def load(user, *, depth=0):
        """Loads."""
        seen.append((parry.attempt().number, parry.attempt().target, threading.current_thread()))
        if len(seen) < 3:
            raise ConnectionResetError("gone")
        return user, depth

    assert load("ada", depth=2) == ("ada", 2) and load.__name__ == "load" and load.__doc__ == "Loads."
    here = threading.current_thread()
    assert seen == [(1, "db/other", here), (2, "db/other", here), (3, "db/other", here)]
    with pytest.raises(parry.Error):
        parry.attempt()


def test_it_goes_elsewhere(engine):
    seen = []

    @engine.guard(target="db/primary")
    def load():
        seen.append(parry.attempt().target)
        if parry.attempt().target == "db/primary":
            raise TimeoutError("too slow")
        return "replica"

    assert load() == "replica" and seen[-1] == "db/replica" and set(seen[:-1]) == {"db/primary"}


def test_the_last_exception_is_raised_with_the_explanation(engine):
    mistakes = []

    @engine.guard(target="db/other")
    def load():
        mistakes.append(ConnectionResetError(f"gone {len(mistakes)}"))
        raise mistakes[-1]

    with pytest.raises(ConnectionResetError, match="gone 2") as caught:
        load()
    assert caught.value is mistakes[2]
    why = caught.value.__cause__
    assert isinstance(why, parry.NetworkError) and why.attempts == 3 and why.target == "db/other"


def test_classify_says_what_an_exception_means(engine):
    seen = []

    @engine.guard(target="db/other", classify=lambda error: {"category": "invalid_request", "code": "E42"})
    def load():
        seen.append(1)
        raise Broken("no such column")

    with pytest.raises(Broken) as caught:
        load()
    assert len(seen) == 1 and caught.value.__cause__.category == "invalid_request"
    assert caught.value.__cause__.code == "E42"


@pytest.mark.parametrize("classify", [lambda error: 1 / 0, lambda error: {"categry": "server"},
                                      lambda error: {"category": "servre"}, lambda error: {"status": "x"}])
def test_a_classify_that_is_wrong_is_told_and_costs_nothing_else(engine, classify, unraisable):
    @engine.guard(target="db/other", classify=classify)
    def load():
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        load()
    assert unraisable and {type(error) for error in unraisable} <= {
        ZeroDivisionError, TypeError, parry.ArgumentError}


def test_what_is_no_exception_ends_the_call(engine):
    @engine.guard(target="db/other")
    def load():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load()


def test_policies_may_refuse_or_answer_by_themselves(make, sim, tmp_path):
    engine = make(init_lua=init(sim.url, chain='use "circuit_breaker" { failures = 1, cooldown = 60 }'))
    seen = []

    @engine.guard(target="db/other")
    def load():
        seen.append(1)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        load()
    with pytest.raises(parry.CallError) as caught:
        load()
    assert len(seen) == 1 and caught.value.code == "circuit_open" and caught.value.attempts == 0


def test_async_functions_run_in_the_callers_loop(engine):
    async def main():
        loop = asyncio.get_running_loop()

        @engine.guard(target="db/primary")
        async def load(number):
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is loop
            if parry.attempt().target != "db/replica":
                raise ConnectionRefusedError("no")
            return number, parry.attempt().number

        results = await asyncio.gather(*(load(number) for number in range(20)))
        assert [number for number, _ in results] == list(range(20)) and all(tries > 1 for _, tries in results)

    asyncio.run(main())


def test_cancelling_the_task_cancels_the_attempt(engine):
    ended = []

    async def main():
        begun = asyncio.Event()

        @engine.guard(target="db/other")
        async def load():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        task = asyncio.create_task(load())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [True]


def test_an_async_attempt_that_has_no_more_time_is_cancelled(make, sim):
    engine = make(init_lua=init(sim.url).replace('provider "db" { host = true }', 'provider "db" { host = true, '
                                                 'timeouts = { attempt = 0.2 } }'))
    seen = []

    async def main():
        @engine.guard(target="db/other")
        async def load():
            seen.append(parry.attempt().number)
            if len(seen) == 1:
                await asyncio.Event().wait()
            return "at last"

        assert await load() == "at last" and seen == [1, 2]

    asyncio.run(main())


def test_a_late_result_is_not_thrown_away(make, sim):
    engine = make(init_lua=init(sim.url).replace('provider "db" { host = true }', 'provider "db" { host = true, '
                                                 'timeouts = { attempt = 0.1 } }'))

    @engine.guard(target="db/other")
    def load():
        begun = threading.Event()
        begun.wait(0.4)  # work that takes longer than it has
        return "late"

    assert load() == "late"


def test_generators_are_refused(engine):
    with pytest.raises(TypeError):
        @engine.guard(target="db/other")
        def load():
            yield 1
