"""engine.guard: any function under the policies."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import inspect
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import _call, _core, _errors, _events, _ffi
from ._call import Attempt, Call

if TYPE_CHECKING:
    from ._engine import Engine

lib = _ffi.lib

#: What an exception means to the policies: arguments of Engine.decide(), over those that describe() finds; None: nothing.
Classify = Callable[[BaseException], Optional[Dict[str, Any]]]

_attempt: contextvars.ContextVar[Optional[Attempt]] = contextvars.ContextVar("parry.attempt", default=None)


def attempt() -> Attempt:
    """The attempt that the running guarded function is: its `target` may be a fallback's.

    >>> @engine.guard(target="db/primary")
    ... def load(user):
    ...     return connect(parry.attempt().target).load(user)
    """
    found = _attempt.get()
    if found is None:
        raise _errors.Error("no guarded function is running here")
    return found


class _Guarded:
    """One call of a guarded function, whichever kind."""

    def __init__(self, engine: Engine, waiter: Any, target: str, path: str, classify: Optional[Classify]):
        self.classify = classify
        self.call = Call(engine._core, waiter, paused_by_reader=False)
        self.call.limit = engine._max_answer
        self.last: Optional[BaseException] = None
        self.call.start(method=None, path=path, target=target, headers=None, body=None, ops=_call.HOST_OPS)

    def next_attempt(self) -> Optional[Attempt]:
        """The newest that is wanted; None: the call has ended, or only abandoned ones are left."""
        with self.call.waiter:
            made, self.call.attempts = list(self.call.attempts), type(self.call.attempts)()
            if self.call.outcome is not None:
                return None
            wanted = [one for one in made if one.number > self.call.abandoned]
        return wanted[-1] if wanted else None

    def told(self, error: BaseException) -> Dict[str, Any]:
        told = _events.describe(error)
        told.setdefault("category", None if told.get("status") else "unknown")
        if self.classify is not None:
            try:
                told.update(self.classify(error) or {})
            except Exception:
                _core.unraisable("classify=")
        return told

    def done(self, made: Attempt, seconds: float, error: Optional[BaseException]) -> None:
        """Tells how an attempt ended."""
        self.last = error
        if error is None:
            self.tell(made, {"ok": True, "seconds": seconds})
            return
        own = _events.describe(error)
        try:
            self.tell(made, {**self.told(error), "seconds": seconds})
        except (TypeError, ValueError, AttributeError, ctypes.ArgumentError):  # classify gave what no event has
            _core.unraisable("classify=")
            self.tell(made, {**own, "seconds": seconds})

    def tell(self, made: Attempt, told: Dict[str, Any]) -> None:
        core = self.call.core
        slot = _events.take()
        try:
            _events.fill(slot, told)
            with core as handle:
                code = lib.parry_attempt_done(handle, self.call.id, made.number, slot.event_ref)
        except _errors.ClosedError:
            return  # the call has ended with its engine; what the function brought is the caller's all the same
        finally:
            _events.give_back(slot)
        if code != _ffi.ENOENT:  # nobody waits for it any more
            core.check(code, "the end of an attempt")
        if not core.threads:
            core.wake()

    def end(self, answer: Optional[Callable[[_call.Response], Any]]) -> Any:
        """What becomes of a call in which no attempt went well."""
        call = self.call
        if call.error is not None:
            raise call.error
        outcome = call.outcome
        assert outcome is not None
        body = call.take()
        if outcome.ok:
            response = _call.Response(call.status, call.headers or (), body, outcome)
            return response if answer is None else answer(response)
        failure = _errors.from_outcome(outcome, call.headers or (), body)
        if self.last is None:
            raise failure
        raise self.last from failure


def decorator(engine: Engine, target: str, path: str, classify: Optional[Classify],
              answer: Optional[Callable[[_call.Response], Any]]) -> Callable[[Any], Any]:
    def wrap(function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator cannot be guarded: what it gave is not taken back")
        if not callable(function):
            raise TypeError(f"{function!r} cannot be called, so it cannot be guarded; "
                            "@classmethod and @staticmethod go above @engine.guard")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
                getattr(type(function), "__call__", None)):
            @functools.wraps(function)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                return await _run_async(engine, target, path, classify, answer, function, args, kwargs)
            return guarded_async

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return _run(engine, target, path, classify, answer, function, args, kwargs)
        return guarded
    return wrap


def _run(engine: Engine, target: str, path: str, classify: Optional[Classify], answer: Any, function: Any, args: Any,
         kwargs: Any) -> Any:
    engine._core.drive_for_thread()
    guarded = _Guarded(engine, _core.ThreadWaiter(), target, path, classify)
    call = guarded.call
    try:
        while True:
            call.wait_until(call.has_attempt)
            made = guarded.next_attempt()
            if made is not None:
                began = time.monotonic()
                token = _attempt.set(made)
                try:
                    result = function(*args, **kwargs)
                except Exception as error:
                    guarded.done(made, time.monotonic() - began, error)
                    continue
                finally:
                    _attempt.reset(token)
                guarded.done(made, time.monotonic() - began, None)
                call.cancel()  # when it came too late; else it has nothing more to say
                return result
            if call.is_over():
                return guarded.end(answer)
    except BaseException:
        call.cancel()
        raise


async def _run_async(engine: Engine, target: str, path: str, classify: Optional[Classify], answer: Any, function: Any,
                     args: Any, kwargs: Any) -> Any:
    loop = engine._use_loop()
    guarded = _Guarded(engine, _core.LoopWaiter(loop), target, path, classify)
    call = guarded.call
    try:
        while True:
            await call.until(call.has_attempt)
            made = guarded.next_attempt()
            if made is not None:
                began = time.monotonic()
                task = loop.create_task(_attempt_of(made, function, args, kwargs))
                try:
                    await _until_done_or_abandoned(task, call, made)
                    if not task.done():
                        task.cancel()  # its time is up; what it brings all the same is taken
                        await asyncio.wait([task])
                except BaseException:
                    task.cancel()
                    raise
                seconds = time.monotonic() - began
                if task.cancelled():
                    if call.abandoned >= made.number or call.is_over():
                        continue
                    guarded.done(made, seconds, asyncio.CancelledError("the attempt was cancelled from within"))
                    continue
                error = task.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                guarded.done(made, seconds, error)
                if error is None:
                    call.cancel()
                    return task.result()
                continue
            if call.is_over():
                return guarded.end(answer)
    except BaseException:
        call.cancel()
        raise


async def _attempt_of(made: Attempt, function: Any, args: Any, kwargs: Any) -> Any:
    _attempt.set(made)  # in the task's own context
    return await function(*args, **kwargs)


async def _until_done_or_abandoned(task: asyncio.Task[Any], call: Call, made: Attempt) -> None:
    """Returns when either is so. `call` is woken when an attempt is abandoned or all is over."""
    waiter = call.waiter
    task.add_done_callback(lambda _: _wake(waiter))
    await waiter.wait(  # type: ignore[misc]
        lambda: task.done() or call.abandoned >= made.number or call.outcome is not None)


def _wake(waiter: Any) -> None:
    with waiter:
        waiter.wake()
