"""One call: what its callbacks note, and what a thread or a task reads of it."""

from __future__ import annotations

import ctypes
import json
import os
from collections import deque
from typing import Any, Callable, Deque, Optional, Tuple, Union

from . import _core, _errors, _events, _ffi

lib = _ffi.lib

PAUSE_ABOVE = 256 * 1024  # bytes that were told and not yet read, above which the provider is held back

Waiter = Union[_core.ThreadWaiter, _core.LoopWaiter]


def text(value: Optional[bytes]) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def outcome_of(told: Any) -> _errors.Outcome:
    return _errors.Outcome(
        ok=bool(told.ok), status=told.status, category=text(told.category), code=text(told.code),
        message=text(told.message), why=text(told.why), retry_after=None if told.retry_after < 0 else told.retry_after,
        attempts=told.attempts, target=text(told.target), call_id=text(told.call_id),
        generation=text(told.generation), truncated=bool(told.truncated))


class Attempt:
    """An attempt that the host makes. `parry.attempt()` gives the one that the running function is."""

    __slots__ = ("number", "target", "provider", "model", "deadline_left")

    def __init__(self, number: int, target: str, provider: str, model: str, deadline_left: float):
        self.number = number
        self.target = target
        self.provider = provider
        self.model = model
        self.deadline_left = deadline_left

    def __repr__(self) -> str:
        return f"Attempt(number={self.number}, target={self.target!r}, deadline_left={self.deadline_left:.3g})"


class Call:
    """Fields are written by callbacks and read by one consumer, under the waiter's lock."""

    def __init__(self, core: _core.Core, waiter: Waiter, paused_by_reader: bool):
        self.core = core
        self.waiter = waiter
        self.pauses = paused_by_reader
        self.id = _ffi.Id()
        self.key = 0
        self.status = 0
        self.headers: Optional[Tuple[Tuple[str, str], ...]] = None
        self.chunks: Deque[bytes] = deque()
        self.buffered = 0
        self.limit = 0  # of what is kept in memory; 0: none
        self.too_large = False
        self.paused = False
        self.dropped = False  # nobody reads any more
        self.outcome: Optional[_errors.Outcome] = None
        self.error: Optional[BaseException] = None  # raised in one of our callbacks
        # for attempts made here
        self.attempts: Deque[Attempt] = deque()
        self.abandoned = 0  # attempts up to this number are not wanted any more
        self.on_abandon: Optional[Callable[[], None]] = None

    # ---- beginning and ending ----------------------------------------------------------------------------------------

    def start(self, *, method: Optional[str], path: str, target: Optional[str], headers: _events.Headers,
              body: Optional[bytes], ops: Any) -> None:
        request = _ffi.Request(size=ctypes.sizeof(_ffi.Request))
        request.method = _events.encode(method)
        request.path = _events.encode(path)
        request.target = _events.encode(target)
        array, count = _events.header_array(headers)
        if count:
            request.headers = ctypes.cast(array, ctypes.POINTER(_ffi.Header))
            request.header_count = count
        if body:
            request.body = body
            request.body_size = len(body)
        self.key = _core.register(self)
        try:
            with self.core as handle:
                error = lib.parry_call(handle, ctypes.byref(request), ctypes.byref(ops), self.key, ctypes.byref(self.id))
            self.core.check(error, f"call {path}")
        except BaseException:
            _core.unregister(self.key)
            raise
        if not self.core.threads:
            self.core.wake()

    def wait_until(self, ready: Callable[[], Any]) -> None:
        """For the consumer that is a thread."""
        if self.core.pid != os.getpid():
            raise self.core.why_unusable()  # nobody delivers here
        self.waiter.wait(ready)  # type: ignore[unused-coroutine]

    async def until(self, ready: Callable[[], Any]) -> None:
        """For the consumer that is a task."""
        await self.waiter.wait(ready)  # type: ignore[misc]

    def drop(self) -> None:
        """For the finalizer of what users hold."""
        if self.outcome is None and not self.dropped:
            self.dropped = True
            self.core.soon(self.cancel)

    def cancel(self) -> None:
        """Any thread, any number of times, also when it has ended. It stays registered until its end is told."""
        if self.core.pid != os.getpid():
            return  # the parent's, whose lock may have been held at the fork
        with self.waiter:
            self.dropped = True
            self.chunks.clear()
            self.buffered = 0
            over = self.outcome is not None
        if over or not self.id.value:
            return
        try:
            with self.core as handle:
                lib.parry_call_cancel(handle, self.id)
        except _errors.Error:
            return  # closed: it has ended with its engine
        if not self.core.threads:
            self.core.wake()

    def read_on(self, limit: int) -> None:
        """From here on what comes is kept until somebody takes it, but no more than `limit` bytes."""
        with self.waiter:
            self.pauses, self.limit = False, limit
            resume, self.paused = self.paused, False
        if resume:
            self.core.between_turns(self.resume)

    def resume(self) -> None:
        try:
            with self.core as handle:
                lib.parry_call_resume(handle, self.id)
        except _errors.Error:
            pass  # closed: what has come is given, then the end

    # ---- reading: under the lock, but for take() ----------------------------------------------------------------------

    def has_head(self) -> bool:
        return self.headers is not None or self.outcome is not None

    def has_data(self) -> bool:
        return bool(self.chunks) or self.outcome is not None

    def is_over(self) -> bool:
        return self.outcome is not None

    def is_whole(self) -> bool:
        return self.too_large or self.outcome is not None

    def has_attempt(self) -> bool:
        return bool(self.attempts) or self.outcome is not None

    def take(self) -> bytes:
        """All that was told and not yet read; b"" at the end."""
        with self.waiter:
            data = b"".join(self.chunks)
            self.chunks.clear()
            self.buffered = 0
            resume, self.paused = self.paused, False
        if resume:  # only once the callback that paused has returned, or the pause would come after it
            self.core.between_turns(self.resume)
        return data


# ---- callbacks ------------------------------------------------------------------------------------------------------
#
# Nothing that they do runs code of the user's; what is raised all the same ends the call, and is raised there.


def _failed(call: Optional[Call], error: BaseException) -> None:
    if not isinstance(error, Exception) and call is not None:
        call.core.interrupt = error  # KeyboardInterrupt in the thread that dispatches
    elif call is not None:
        with call.waiter:
            call.error = call.error or error
            call.waiter.wake()
    else:
        _core.unraisable("a callback")


@_ffi.HeadersFunction
def on_headers(user: int, status: int, headers: Any, count: int) -> None:
    call = _core.look_up(user)
    try:
        told = tuple((headers[i].name.decode("latin-1"), headers[i].value.decode("utf-8", "replace"))
                     for i in range(count))
        with call.waiter:
            call.status, call.headers = status, told
            call.waiter.wake()
    except BaseException as error:
        _failed(call, error)


@_ffi.DataFunction
def on_data(user: int, data: int, size: int) -> int:
    call = _core.look_up(user)
    try:
        with call.waiter:
            if call.dropped or not size:
                return 0
            call.buffered += size
            if call.limit and call.buffered > call.limit:
                call.too_large = True
                call.chunks.clear()
            else:
                call.chunks.append(ctypes.string_at(data, size))
            call.paused = call.pauses and call.buffered > PAUSE_ABOVE
            if call.pauses or call.too_large:
                call.waiter.wake()
            return _ffi.PAUSE if call.paused else 0
    except BaseException as error:
        _failed(call, error)
        return 0


@_ffi.DoneFunction
def on_done(user: int, told: Any) -> None:
    call = _core.unregister(user)
    try:
        outcome = outcome_of(told[0])
        with call.waiter:
            call.outcome = outcome
            call.waiter.wake()
        if call.on_abandon is not None:
            call.on_abandon()
    except BaseException as error:
        _failed(call, error)


@_ffi.AttemptFunction
def on_attempt(user: int, told: Any) -> None:
    call = _core.look_up(user)
    try:
        attempt = told[0]
        made = Attempt(attempt.number, text(attempt.target), text(attempt.provider), text(attempt.model),
                       attempt.deadline_left)
        with call.waiter:
            call.attempts.append(made)
            call.waiter.wake()
    except BaseException as error:
        _failed(call, error)


@_ffi.AbandonFunction
def on_abandon(user: int, _id: Any, number: int) -> None:
    call = _core.look_up(user)
    try:
        with call.waiter:
            call.abandoned = max(call.abandoned, number)
            call.waiter.wake()
        if call.on_abandon is not None:
            call.on_abandon()
    except BaseException as error:
        _failed(call, error)


HTTP_OPS = _ffi.CallOps(ctypes.sizeof(_ffi.CallOps), on_headers, on_data, on_done)
HOST_OPS = _ffi.CallOps(ctypes.sizeof(_ffi.CallOps), on_headers, on_data, on_done, on_attempt, on_abandon)


# ---- what users hold ---------------------------------------------------------------------------------------------------


class Response:
    """An answer, whole. `outcome` tells how it was come by."""

    def __init__(self, status: int, headers: Tuple[Tuple[str, str], ...], body: bytes, outcome: _errors.Outcome):
        #: HTTP status.
        self.status = status
        #: Pairs, in order; header(name) finds one.
        self.headers = headers
        self.body = body
        self.outcome = outcome

    @property
    def ok(self) -> bool:
        return self.outcome.ok

    @property
    def attempts(self) -> int:
        """Made, refused ones not counted."""
        return self.outcome.attempts

    @property
    def target(self) -> str:
        """ "provider/model" that answered."""
        return self.outcome.target

    @property
    def call_id(self) -> str:
        """As in the logs."""
        return self.outcome.call_id

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        return find_header(self.headers, name, default)

    def raise_for_outcome(self) -> Response:
        """Raises the CallError of a call that failed; else gives itself."""
        if not self.outcome.ok:
            raise _errors.from_outcome(self.outcome, self.headers, self.body)
        return self

    def __repr__(self) -> str:
        return f"<Response {self.status} from {self.target or 'nobody'} after {self.attempts} attempts>"


def find_header(headers: Tuple[Tuple[str, str], ...], name: str, default: Optional[str] = None) -> Optional[str]:
    wanted = name.lower()
    return next((value for found, value in headers if found.lower() == wanted), default)


class _Stream:
    """What the two kinds of streams share."""

    def __init__(self, call: Call, engine: Any):
        self._call = call
        self._engine = engine  # which lives as long as its answers are read

    def __del__(self) -> None:
        self._call.drop()

    @property
    def status(self) -> int:
        return self._call.status

    @property
    def headers(self) -> Tuple[Tuple[str, str], ...]:
        return self._call.headers or ()

    @property
    def outcome(self) -> Optional[_errors.Outcome]:
        """None as long as it runs."""
        return self._call.outcome

    def header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        return find_header(self.headers, name, default)

    def _raise_if_failed(self, body: bytes = b"") -> None:
        if self._call.error is not None:
            raise self._call.error
        outcome = self._call.outcome
        if outcome is not None and not outcome.ok:
            raise _errors.from_outcome(outcome, self.headers, body)


class Stream(_Stream):
    """An answer that is read while it comes: iterate over it for chunks of bytes. Leaving the `with` early ends the call."""

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        data = self.read_some()
        if not data:
            self._raise_if_failed()
            raise StopIteration
        return data

    def read_some(self) -> bytes:
        """What has come since, at least one byte; b"" at the end, whatever end it was."""
        self._call.wait_until(self._call.has_data)
        return self._call.take()

    def close(self) -> None:
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class AsyncStream(_Stream):
    """The same for asyncio."""

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read_some()
        if not data:
            self._raise_if_failed()
            raise StopAsyncIteration
        return data

    async def read_some(self) -> bytes:
        await self._call.until(self._call.has_data)
        return self._call.take()

    async def aclose(self) -> None:
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()
