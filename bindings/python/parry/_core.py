"""The handle, who delivers its callbacks, and the registry of what waits for them.

Delivery. parry calls back only from inside parry_dispatch() and parry_run(). Who calls those is the engine's *driver*, one at
a time:

  none      nobody has waited yet, and nothing is to be told unasked;
  a loop    the asyncio loop that used the engine first: parry_fd() is one of its readers, callbacks run in the loop;
  a thread  a daemon thread of this package. It takes over for good as soon as a second thread or loop waits, when a
            callable is to be told of logs, alerts, reloads or policies' questions, and always with threads=0, where it is
            also what does parry's work.

So a program that only uses asyncio has no further Python thread, and a blocking call works anywhere, even in a coroutine.
Callbacks do nothing but note what they were told and wake who waits; host functions run elsewhere (see _functions.py).

References. C holds no pointers to Python objects: `user` is a number, found in `_registry` until its last callback. The
callback thunks are module globals that live as long as the process. A driver refers to the Core, never to the Engine, so an
engine that nobody holds is collected, and closed.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import itertools
import os
import select
import sys
import threading
import time
import _thread
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Set

from . import _errors, _ffi

lib = _ffi.lib

_registry: Dict[int, Any] = {}  # key -> what is waiting; single operations on a dict are atomic
_keys = itertools.count(1)


def register(thing: Any) -> int:
    key = next(_keys)
    _registry[key] = thing
    return key


def replace(key: int, thing: Any) -> None:
    _registry[key] = thing


def look_up(key: Optional[int]) -> Any:
    return _registry.get(key or 0)


def unregister(key: Optional[int]) -> Any:
    return _registry.pop(key or 0, None)


def unraisable(where: str) -> None:
    """Tells of the exception in flight as Python tells of those that nobody can catch."""
    kind, value, trace = sys.exc_info()
    fields = {"exc_type": kind, "exc_value": value, "exc_traceback": trace, "err_msg": f"parry: ignored in {where}",
              "object": None}
    sys.unraisablehook(type("UnraisableHookArgs", (), fields)())  # type: ignore[arg-type]


class Core:
    """What is behind an Engine. Any thread."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        self.threads = 0
        self.closing = False
        self.closed = False
        self.pid = os.getpid()
        self.uses: List[None] = []  # one element for each thread that is inside the library; append and pop are atomic
        self.lock = threading.Lock()  # of the driver
        self.dispatching = threading.Lock()  # held during parry_dispatch(), parry_run(), parry_free()
        self.dispatcher = 0  # the thread that is inside them
        self.interrupt: Optional[BaseException] = None  # raised in a callback, to be raised by whoever dispatches
        self.thread: Optional[threading.Thread] = None
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.wake_read = self.wake_write = -1
        self.fd = -1
        self.keys: List[int] = []  # registered for as long as the engine lives
        self.names: Dict[str, int] = {}  # those of host functions
        self.at_close: List[Callable[[], None]] = []
        self.todo: Deque[Callable[[], Any]] = deque()  # for the driver, between its turns

    # ---- uses ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Any:
        """`with core as handle`: the handle stays valid within."""
        self.uses.append(None)  # first, so that close() either sees this use or is seen by it
        if self.closing:
            self.uses.pop()
            raise self.why_unusable()
        return self.handle

    def __exit__(self, *_: Any) -> None:
        self.uses.pop()

    def why_unusable(self) -> _errors.Error:
        if self.pid != os.getpid():
            return _errors.from_code(_ffi.EFORKED, "parry")
        return _errors.ClosedError("the engine was closed")

    def check(self, code: int, doing: str) -> int:
        if code < 0:
            raise _errors.from_code(code, doing)
        return code

    # ---- driving ---------------------------------------------------------------------------------------------------

    def dispatch(self, timeout: Optional[float] = None) -> int:
        """Delivers what there is; with threads=0, works for at most `timeout` seconds."""
        with self.dispatching:
            if self.closed:
                return _ffi.EFREED
            self.dispatcher = threading.get_ident()
            try:
                result = lib.parry_dispatch(self.handle) if timeout is None else lib.parry_run(self.handle, timeout)
            finally:
                self.dispatcher = 0
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            raise interrupt
        return int(result)

    def in_callback(self) -> bool:
        return self.dispatcher == threading.get_ident()

    def drive_for_thread(self) -> None:
        """Sees to it that a thread may block until it is woken."""
        if self.in_callback():
            raise _errors.from_code(_ffi.EREENTRANT, "a blocking call")
        if self.closing or self.pid != os.getpid():
            raise self.why_unusable()
        if self.thread is None:
            self.start_thread()

    def drive_for_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sees to it that a task of `loop` may wait until it is woken."""
        if self.closing or self.pid != os.getpid():
            raise self.why_unusable()
        if self.thread is not None or self.loop is loop:
            return
        with self.lock:
            if self.thread is None and self.threads and (self.loop is None or self.loop.is_closed()):
                try:
                    loop.add_reader(self.fd, self.from_loop)
                    self.loop = loop
                    return
                except NotImplementedError:
                    pass  # a loop without readers
        self.start_thread()

    def from_loop(self) -> None:
        if self.thread is not None or not self.dispatching.acquire(blocking=False):
            return  # the thread has taken over; this reader goes in a moment
        self.dispatching.release()
        self.dispatch()

    def start_thread(self) -> None:
        with self.lock:
            if self.thread is not None or self.closing:
                return
            self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            thread = threading.Thread(target=_drive, args=(self,), name="parry", daemon=True)
            thread.start()
            self.thread = thread
            self.leave_loop()

    def leave_loop(self) -> None:
        loop, self.loop = self.loop, None
        if loop is None or loop.is_closed():
            return
        if _running_loop() is loop:
            loop.remove_reader(self.fd)
            return
        try:
            loop.call_soon_threadsafe(loop.remove_reader, self.fd)
        except RuntimeError:
            pass  # closed this moment

    def between_turns(self, function: Callable[[], Any]) -> None:
        """Runs it when no callback of this engine runs: soon on the driver's thread, or now when this is a task of the
        driver's loop."""
        if self.thread is None and self.loop is not None and _running_loop() is self.loop:
            function()
            return
        self.todo.append(function)
        self.wake()

    def soon(self, function: Callable[[], Any]) -> None:
        """For finalizers, which run anywhere, with any lock held: runs it where callbacks are delivered, takes no lock."""
        loop = self.loop
        if self.closing or self.pid != os.getpid():
            return
        if self.thread is None and loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(function)
                return
            except RuntimeError:
                pass  # closed this moment
        self.todo.append(function)
        self.wake()

    def on_driver(self, function: Callable[[], Any]) -> None:
        """Runs it between turns of the thread, and returns when that was done."""
        self.drive_for_thread()
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self.between_turns(run)
        while not done.wait(0.5):
            if self.closing:
                raise self.why_unusable()

    def wake(self) -> None:
        """Ends the thread's wait. With threads=0 also so that it works on what was begun just now."""
        if self.wake_write != -1:
            try:
                os.write(self.wake_write, b"w")
            except OSError:
                pass  # full: it wakes anyhow
        if not self.threads:
            lib.parry_wakeup(self.handle)

    # ---- closing ---------------------------------------------------------------------------------------------------

    def close(self, patience: float = 10.0) -> None:
        """Ends every open call and frees the engine. From a callback: ReentrantError. Twice: nothing. It waits `patience`
        seconds for threads that are inside the library; a callback that never ends costs the engine's memory, no hang."""
        if self.in_callback():
            raise _errors.from_code(_ffi.EREENTRANT, "close")
        if self.pid != os.getpid():  # the parent's: only forget it, and trust no lock, which may have been held at the fork
            if not self.closing:
                self.closing = self.closed = True
                lib.parry_free(self.handle)
            live.discard(self)
            return
        with self.lock:
            if self.closing:
                return
            self.closing = True
        end = time.monotonic() + patience
        for function in self.at_close:
            function()
        self.leave_loop()
        thread = self.thread
        if thread is not None:
            self.wake()
            thread.join(patience)
        while self.uses and time.monotonic() < end:
            time.sleep(0.0005)  # somebody is about to leave the library
        if self.uses or (thread is not None and thread.is_alive()):
            return
        self.free(end)
        live.discard(self)
        for key in self.keys:
            unregister(key)
        for fd in (self.wake_read, self.wake_write):
            if fd != -1:
                os.close(fd)
        self.wake_read = self.wake_write = -1

    def free(self, end: float) -> None:
        if not self.dispatching.acquire(timeout=max(0.0, end - time.monotonic())):
            return
        try:
            self.dispatcher = threading.get_ident()
            lib.parry_free(self.handle)
            self.closed = True
        finally:
            self.dispatcher = 0
            self.dispatching.release()
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            raise interrupt


def finalize(core: Core) -> None:
    """For an engine that was dropped. The collector may run anywhere, with any lock held, so closing happens on a thread of
    its own."""
    if not core.closing and core.pid == os.getpid():
        try:
            _thread.start_new_thread(core.close, ())
        except RuntimeError:
            pass  # no more threads: at_exit() closes it


live: Set[Core] = set()


def at_exit() -> None:
    """The interpreter ends: engines that are still open end before it, as their threads call into it."""
    for core in list(live):
        try:
            core.close(patience=2.0)
        except BaseException:
            unraisable("closing an engine")


atexit.register(at_exit)


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _drive(core: Core) -> None:
    """The thread."""
    poll = select.poll()
    poll.register(core.wake_read, select.POLLIN)
    if core.threads:
        poll.register(core.fd, select.POLLIN)
    while not core.closing:
        if core.threads:
            poll.poll()
        try:
            os.read(core.wake_read, 4096)
        except OSError:
            pass  # nothing there
        if core.closing:
            return
        try:
            while core.todo:
                core.todo.popleft()()
            if core.dispatch(None if core.threads else -1.0) in (_ffi.EFREED, _ffi.EFORKED):
                return
        except BaseException:  # raised in a callback that no caller waits for
            unraisable("a callback")


# ---- waiting -----------------------------------------------------------------------------------------------------


class ThreadWaiter:
    """Lets one thread wait for what a callback brings. Also the lock of what is brought."""

    def __init__(self) -> None:
        self.condition = threading.Condition(threading.Lock())

    def __enter__(self) -> None:
        self.condition.acquire()

    def __exit__(self, *_: Any) -> None:
        self.condition.release()

    def wake(self) -> None:
        """With the lock held."""
        self.condition.notify_all()

    def wait(self, ready: Callable[[], Any], timeout: Optional[float] = None) -> bool:
        with self.condition:
            return bool(self.condition.wait_for(ready, timeout))


class LoopWaiter:
    """The same for a task of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = threading.Lock()
        self.future: Optional[asyncio.Future[None]] = None

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self.lock.release()

    def wake(self) -> None:
        future, self.future = self.future, None
        if future is None:
            return
        if _running_loop() is self.loop:
            _finish(future)
            return
        try:
            self.loop.call_soon_threadsafe(_finish, future)
        except RuntimeError:
            pass  # the loop was closed: nobody waits

    async def wait(self, ready: Callable[[], Any]) -> None:
        while True:
            with self.lock:
                if ready():
                    return
                if self.future is None or self.future.done():  # one whose wait was cancelled wakes nobody
                    self.future = self.loop.create_future()
                future = self.future
            await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
