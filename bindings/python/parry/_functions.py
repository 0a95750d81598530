"""Host functions: what policies can ask this program, host.call("name", arguments)."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import queue
import threading
from typing import Any, Callable, Optional

from . import _core, _errors, _events, _ffi

lib = _ffi.lib

WORKERS = 8  # plain functions that run at the same time; more wait


class Function:
    """One that is registered. Plain functions run on threads of a small pool, async ones in a loop, and those of any_thread
    at once on the thread on which the policy runs. So a slow one delays nothing but its own answer."""

    def __init__(self, core: _core.Core, runners: Runners, name: str, function: Callable[[Any], Any], any_thread: bool):
        self.core = core
        self.runners = runners
        self.name = name
        self.function = function
        self.any_thread = any_thread
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None))
        if self.is_async and any_thread:
            raise TypeError(f"{name}: any_thread is for plain functions that are quick")

    def asked(self, request: int, arguments: bytes) -> None:
        if self.any_thread:
            self.answer(request, arguments)
        elif self.is_async:
            self.runners.loop_for(self).call_soon_threadsafe(self.begin, request, arguments)
        else:
            self.runners.submit(self, request, arguments)

    def answer(self, request: int, arguments: bytes) -> None:
        try:
            result = _events.json_text(self.function(json.loads(arguments)))
        except BaseException as error:  # also SystemExit: there is no program here to end, only a thread that others need
            self.failed(request, error)
        else:
            self.reply(request, result, None)

    def begin(self, request: int, arguments: bytes) -> None:
        task = asyncio.ensure_future(self.answer_later(request, arguments))
        self.runners.tasks.add(task)
        task.add_done_callback(self.runners.tasks.discard)

    async def answer_later(self, request: int, arguments: bytes) -> None:
        try:
            result = _events.json_text(await self.function(json.loads(arguments)))
        except asyncio.CancelledError:
            self.reply(request, None, "the function was cancelled")
            raise
        except BaseException as error:
            self.failed(request, error)
        else:
            self.reply(request, result, None)

    def failed(self, request: int, error: BaseException) -> None:
        self.reply(request, None, f"{type(error).__name__}: {_events.sentence(error)}")
        if not isinstance(error, HostFunctionError):
            _core.unraisable(f"function {self.name!r}")

    def reply(self, request: int, result: Optional[bytes], error: Optional[str]) -> None:
        if result is not None and len(result) > 64 * 1024:
            result, error = None, f"the answer of {self.name} has {len(result)} bytes, more than 65536"
        try:
            with self.core as handle:
                problem = None if error is None else error.encode("utf-8", "replace")
                code = lib.parry_reply(handle, _ffi.Id(request), result, problem)
                if code == _ffi.EINVAL:  # what json.dumps() writes and parry does not read, as when it is nested too deep
                    lib.parry_reply(handle, _ffi.Id(request), None, f"the answer of {self.name} is not JSON".encode())
        except _errors.Error:
            return  # closed meanwhile: nobody waits
        if not self.core.threads and not self.any_thread:
            self.core.wake()


class HostFunctionError(_errors.Error):
    """Raise it in a host function to tell the policy of a failure that is no surprise: it sees nil, err{message = ...}. Other
    exceptions are told in the same way, and by sys.unraisablehook."""


class Runners:
    """Where an engine's functions run: made when first needed, ended with the engine."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tasks: Any = set()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = 0
        self._waiting = 0  # asked, and not begun by a thread
        self._idle = 0
        self._loop: Optional[asyncio.AbstractEventLoop] = None  # our own, on a thread
        self._thread: Optional[threading.Thread] = None
        self.home: Optional[asyncio.AbstractEventLoop] = None  # the program's

    def submit(self, function: Function, request: int, arguments: bytes) -> None:
        with self.lock:
            self._waiting += 1
            start = self._waiting > self._idle and self._threads < WORKERS
            self._threads += start
        self._queue.put((function, request, arguments))
        if start:
            threading.Thread(target=self._work, name="parry-function", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self.lock:
                self._idle += 1
            asked = self._queue.get()
            with self.lock:
                self._idle -= 1
                self._waiting -= asked is not None
            if asked is None:
                return
            function, request, arguments = asked
            function.answer(request, arguments)
            del asked, function, arguments  # nothing is kept while it waits

    def loop_for(self, function: Function) -> asyncio.AbstractEventLoop:
        home = self.home
        if home is not None and home.is_running():
            return home
        with self.lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="parry-functions", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        with self.lock:
            loop, thread = self._loop, self._thread
            for _ in range(self._threads):
                self._queue.put(None)
        if loop is not None and thread is not None:
            def end() -> None:
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.call_soon(loop.stop)
            loop.call_soon_threadsafe(end)
            if thread is not threading.current_thread():
                thread.join(2.0)
                if not thread.is_alive():
                    loop.close()


@_ffi.HostFunction
def on_function(user: int, request: Any, arguments: int, size: int) -> None:
    """Callback; any thread."""
    function = _core.look_up(user)
    try:
        function.asked(request.value, ctypes.string_at(arguments, size) if size else b"null")
    except BaseException as error:
        if function is None:
            return  # its engine is being closed
        function.reply(request.value, None, f"{type(error).__name__}: {_events.sentence(error)}")
        if isinstance(error, Exception):
            _core.unraisable(f"function {function.name!r}")
        else:
            function.core.interrupt = error
