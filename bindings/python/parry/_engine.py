"""Engine: all that a program does with parry."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import weakref
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, TypeVar, Union

from . import _call, _core, _decision, _errors, _events, _ffi, _functions, _guard
from ._call import AsyncStream, Call, Response, Stream
from ._decision import Decision, Metrics, Status

lib = _ffi.lib
_decide = lib.parry_decide

F = TypeVar("F", bound=Callable[..., Any])
Path = Union[str, "os.PathLike[str]"]
Log = Union[logging.Logger, Callable[[Dict[str, Any]], Any]]

LEVELS = {"debug": 0, "info": 1, "warning": 2, "warn": 2, "error": 3}
_LOGGING = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
MAX_ANSWER = 64 * 1024 * 1024


class Alert(NamedTuple):
    """An alert that a policy raised (`notify`), or that is over."""

    #: Names it while it is open.
    key: str
    #: Whom the policy wants told.
    sink: str
    #: "info", "warning", "error", "critical"
    severity: str
    title: str
    text: str
    cause: str
    resolved: bool
    count: int


class Reload(NamedTuple):
    """How a look at the policies ended that changed something or was refused."""

    #: They were taken over; else refused, and the old ones go on.
    ok: bool
    #: Content hash of what serves now.
    generation: str
    #: "file:line: text"; warnings also when they were taken over.
    findings: List[str]
    #: The engine went back by itself: the successor's policies faulted.
    rolled_back: bool


class Engine:
    """Policies, loaded and at work.

    >>> with parry.Engine("/etc/parry/policies") as engine:
    ...     answer = engine.call("/v1/chat/completions", json={"model": "kimi-k2", "messages": [...]})
    ...     print(answer.json(), answer.attempts)

    `policy_dir` is the folder with init.lua, or `init_lua` its text. `share_dir` is where the shipped policies are (None: the
    ones installed with parry), `state_dir` where rotated refresh tokens are kept. `secrets` are found before files and the
    environment. With `watch` a saved edit goes live by itself.

    `threads` are parry's own: 1 does for everything but very busy programs; 0: all work is done on one Python thread.
    `log` is a logging.Logger, or is called with each line as a dict; `alert` is called with an Alert, `reloaded` with a
    Reload; all from a thread of this package, so they must not block.

    May be used from any thread and any asyncio loop. Close it, or leave its `with`, or drop it; the end of the program closes
    it, too. After a fork it is the parent's: ForkedError.
    """

    def __init__(self, policy_dir: Optional[Path] = None, *, init_lua: Optional[str] = None,
                 share_dir: Optional[Path] = None, state_dir: Optional[Path] = None,
                 ca_file: Optional[Path] = None, secrets: Optional[Mapping[str, str]] = None, watch: bool = False,
                 threads: int = 1, deciders: int = 0, max_calls: int = 0, max_buffered: int = 0,
                 max_answer: int = MAX_ANSWER, log: Optional[Log] = None, log_level: str = "info", alert: Optional[Callable[[Alert], Any]] = None,
                 reloaded: Optional[Callable[[Reload], Any]] = None):
        if (policy_dir is None) == (init_lua is None):
            raise _errors.ArgumentError("give policy_dir or init_lua, one of them")
        if log_level not in LEVELS:
            raise _errors.ArgumentError(f"log_level is one of {', '.join(LEVELS)}, got {log_level!r}")
        if not 0 <= threads <= 255:
            raise _errors.ArgumentError(f"threads is 0..255, got {threads}")
        self._core = core = _core.Core()
        core.threads = threads
        self._max_answer = max_answer
        self._runners = _functions.Runners()
        options = _ffi.Options(size=ctypes.sizeof(_ffi.Options))
        options.policy_dir = _path(policy_dir)
        options.init_lua = _events.encode(init_lua)
        options.share_dir = _path(share_dir if share_dir is not None else _ffi.bundled_share)
        options.state_dir = _path(state_dir)
        options.ca_file = _path(ca_file)
        options.threads, options.deciders, options.watch = threads, deciders, int(watch)
        options.max_calls, options.max_buffered = max_calls, max_buffered
        options.log_level = LEVELS[log_level]
        array, count = _events.header_array(secrets)
        if count:
            options.secrets, options.secret_count = ctypes.cast(array, ctypes.POINTER(_ffi.Header)), count
        told = _Told(log, alert, reloaded)
        options.user = key = _core.register(told)
        core.keys.append(key)
        options.log = _on_log if log is not None else _ffi.LogFunction()
        options.alert = _on_alert if alert is not None else _ffi.AlertFunction()
        options.reloaded = _on_reloaded if reloaded is not None else _ffi.ReloadedFunction()
        self._begin(options)
        core.at_close.append(self._runners.close)
        # Callbacks go on to the end of closing, and the collector may come at any time: see _core.finalize().
        self._finalizer = weakref.finalize(self, _core.finalize, core)
        self._finalizer.atexit = False
        _core.live.add(core)
        if log is not None or alert is not None or reloaded is not None or not threads:
            core.start_thread()

    def _begin(self, options: Any) -> None:
        core = self._core
        error = lib.parry_new(ctypes.byref(core.handle), ctypes.byref(options))
        if error == _ffi.OK:
            core.fd = lib.parry_fd(core.handle) if core.threads else -1
            return
        core.closing = True
        for key in core.keys:
            _core.unregister(key)
        if error != _ffi.EPOLICY:
            raise _errors.from_code(error, "parry_new")
        findings = _findings(core.handle)
        lib.parry_free(core.handle)
        raise _errors.PolicyError(findings)

    # ---- lifetime ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends every open call (as "cancelled") and frees all. Twice does nothing."""
        self._core.close()

    async def aclose(self) -> None:
        """The same, without keeping the loop from its other work."""
        if self._core.loop is not None:
            self._core.leave_loop()
        await asyncio.get_running_loop().run_in_executor(None, self._core.close)

    @property
    def closed(self) -> bool:
        return self._core.closing

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        try:
            return f"<parry.Engine {self.generation[:12]}>"
        except (AttributeError, _errors.Error):
            return "<parry.Engine closed>" if not hasattr(self, "_core") or self.closed else "<parry.Engine of a parent>"

    def __reduce__(self) -> Any:
        raise TypeError("an engine has threads and cannot be copied or sent: make one in each process")

    # ---- calls ---------------------------------------------------------------------------------------------------------

    def call(self, path: str, *, json: Any = None, body: Union[bytes, str, None] = None, headers: _events.Headers = None,
             target: Optional[str] = None, method: Optional[str] = None, raise_for_outcome: bool = True) -> Response:
        """Makes a call and gives the whole answer. parry retries, waits, switches targets and renews tokens as the policies
        say; what fails for good raises the CallError of its category, or, with raise_for_outcome=False, is the Response
        that a client would have been given.

        `path` finds the route, as in the gateway. `target` is "provider/model" of the first attempt; None: as the route says.
        """
        call = self._start_for_thread(path, json, body, headers, target, method, whole=True)
        try:
            call.wait_until(call.is_whole)
            if call.too_large:
                call.cancel()
                call.wait_until(call.is_over)
        except BaseException:  # KeyboardInterrupt
            call.cancel()
            raise
        return self._answer(call, raise_for_outcome)

    async def acall(self, path: str, *, json: Any = None, body: Union[bytes, str, None] = None,
                    headers: _events.Headers = None, target: Optional[str] = None, method: Optional[str] = None,
                    raise_for_outcome: bool = True) -> Response:
        """call() for asyncio. Cancelling the task ends the call."""
        call = self._start_for_loop(path, json, body, headers, target, method, whole=True)
        try:
            await call.until(call.is_whole)
            if call.too_large:
                call.cancel()
                await call.until(call.is_over)
        except BaseException:
            call.cancel()
            raise
        return self._answer(call, raise_for_outcome)

    def stream(self, path: str, *, json: Any = None, body: Union[bytes, str, None] = None,
               headers: _events.Headers = None, target: Optional[str] = None, method: Optional[str] = None,
               raise_for_outcome: bool = True) -> Stream:
        """Begins a call, and returns when its answer begins. The provider is held back while nobody reads.

        >>> with engine.stream("/v1/chat/completions", json={**question, "stream": True}) as answer:
        ...     for chunk in answer:
        ...         sys.stdout.buffer.write(chunk)
        """
        call = self._start_for_thread(path, json, body, headers, target, method, whole=False)
        stream = Stream(call, self)
        try:
            call.wait_until(call.has_head)
            if raise_for_outcome and (call.status >= 400 or call.headers is None):
                call.read_on(self._max_answer)
                call.wait_until(call.is_whole)
                if call.too_large:
                    call.cancel()
                    call.wait_until(call.is_over)
                self._answer(call, True)
        except BaseException:
            call.cancel()
            raise
        return stream

    def astream(self, path: str, *, json: Any = None, body: Union[bytes, str, None] = None,
                headers: _events.Headers = None, target: Optional[str] = None, method: Optional[str] = None,
                raise_for_outcome: bool = True) -> _AsyncStreamContext:
        """stream() for asyncio.

        >>> async with engine.astream("/v1/chat/completions", json={**question, "stream": True}) as answer:
        ...     async for chunk in answer:
        ...         sys.stdout.buffer.write(chunk)
        """
        def start() -> Call:
            return self._start_for_loop(path, json, body, headers, target, method, whole=False)
        return _AsyncStreamContext(self, start, raise_for_outcome)

    def _start_for_thread(self, path: str, value: Any, body: Any, headers: _events.Headers, target: Optional[str],
                          method: Optional[str], whole: bool) -> Call:
        self._core.drive_for_thread()
        return self._start(_core.ThreadWaiter(), path, value, body, headers, target, method, whole)

    def _start_for_loop(self, path: str, value: Any, body: Any, headers: _events.Headers, target: Optional[str],
                        method: Optional[str], whole: bool) -> Call:
        loop = self._use_loop()
        return self._start(_core.LoopWaiter(loop), path, value, body, headers, target, method, whole)

    def _use_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        self._runners.home = loop
        self._core.drive_for_loop(loop)
        return loop

    def _start(self, waiter: Any, path: str, value: Any, body: Any, headers: _events.Headers, target: Optional[str],
               method: Optional[str], whole: bool) -> Call:
        if value is not None:
            if body is not None:
                raise _errors.ArgumentError("give json or body, one of them")
            body = _events.json_text(value)
            headers = list(headers.items() if isinstance(headers, Mapping) else headers or ())
            if not any(name.lower() == "content-type" for name, _ in headers):
                headers.append(("content-type", "application/json"))
        elif isinstance(body, str):
            body = body.encode()
        call = Call(self._core, waiter, paused_by_reader=not whole)
        call.limit = self._max_answer if whole else 0
        call.start(method=method, path=path, target=target, headers=headers, body=body, ops=_call.HTTP_OPS)
        return call

    def _answer(self, call: Call, raise_for_outcome: bool) -> Response:
        if call.error is not None:
            raise call.error
        assert call.outcome is not None
        if call.too_large:
            outcome = call.outcome
            outcome.ok, outcome.category, outcome.truncated = False, "payload_too_large", True
            outcome.message = f"the answer has more than max_answer ({self._max_answer}) bytes"
            raise _errors.from_outcome(outcome, call.headers or ())
        response = Response(call.status or call.outcome.status, call.headers or (), call.take(), call.outcome)
        return response.raise_for_outcome() if raise_for_outcome else response

    # ---- decisions -----------------------------------------------------------------------------------------------------

    def decide(self, event: Optional[str] = None, *, exception: Optional[BaseException] = None, wait: bool = False,
               **told: Any) -> Decision:
        """Asks the policies about a failure of the program's own, or, with `event`, about an event with that name.

        >>> decision = engine.decide(target="db/primary", exception=error, attempt=2)
        >>> if decision.action is parry.Action.RETRY:
        ...     time.sleep(decision.after)

        What is known of the failure: target, status, category, code, message, headers, body (of the answer), retry_after,
        not_sent, curl_code, attempt, deadline_left, repeatable, route; `exception` brings what describe() finds in it. An
        event has `fields`, a dict.

        A policy that would have to wait (http.request, a host function) counts as having nothing to say, so that this takes
        microseconds; with `wait` it is waited for.
        """
        if wait:
            self._core.drive_for_thread()
            waiting = self._ask_waiting(_core.ThreadWaiter(), event, exception, told)
            if isinstance(waiting, Decision):
                return waiting
            waiting.waiter.wait(waiting.is_over)  # type: ignore[union-attr, unused-coroutine]
            return waiting.result()
        slot, core = _events.take(), self._core
        try:
            if exception is not None or event is not None:
                self._fill(slot, event, exception, told)
            else:
                _events.fill(slot, told)
            core.uses.append(None)  # `with core`, at a third of its price
            try:
                if core.closing:
                    raise core.why_unusable()
                error = _decide(core.handle, slot.event_ref, slot.decision_ref, _no_ready, None)
            finally:
                core.uses.pop()
            if error:
                raise _errors.from_code(error, "decide")
            return _decision.decision_of(slot.decision)
        finally:
            _events.give_back(slot)

    async def adecide(self, event: Optional[str] = None, *, exception: Optional[BaseException] = None,
                      **told: Any) -> Decision:
        """decide() for asyncio. Policies that wait are awaited."""
        waiting = self._ask_waiting(_core.LoopWaiter(self._use_loop()), event, exception, told)
        if isinstance(waiting, Decision):
            return waiting
        await waiting.waiter.wait(waiting.is_over)  # type: ignore[misc]
        return waiting.result()

    def _ask_waiting(self, waiter: Any, event: Optional[str], exception: Optional[BaseException],
                     told: Dict[str, Any]) -> Union[Decision, _Waiting]:
        slot = _events.take()
        waiting = _Waiting(self._core, waiter)
        key = _core.register(waiting)
        error = _ffi.EINVAL
        try:
            self._fill(slot, event, exception, told)
            with self._core as handle:
                error = lib.parry_decide(handle, slot.event_ref, slot.decision_ref, _on_ready, key)
                if error == _ffi.OK:
                    return _decision.decision_of(slot.decision)
                if error != _ffi.PENDING:
                    raise _errors.from_code(error, "decide")
        finally:
            if error != _ffi.PENDING:
                _core.unregister(key)
            _events.give_back(slot)
        if not self._core.threads:
            self._core.wake()
        return waiting

    @staticmethod
    def _fill(slot: _events.Slot, event: Optional[str], exception: Optional[BaseException],
              told: Dict[str, Any]) -> None:
        if exception is not None:
            told = {**_events.describe(exception), **told}
        if event is not None:
            told["name"] = event
        _events.fill(slot, told)

    def report(self, *, ok: bool, exception: Optional[BaseException] = None, **told: Any) -> None:
        """Tells how an attempt of the program's own went, good or bad, so that breakers, health, budgets and alerts know.
        Report each attempt, then ask decide() about the failed ones. Arguments as of decide(), and `seconds` that it took.

        >>> engine.report(ok=True, target="db/primary", seconds=0.012)
        """
        slot = _events.take()
        try:
            told["ok"] = ok
            self._fill(slot, None, exception, told)
            with self._core as handle:
                error = lib.parry_report(handle, slot.event_ref)
            self._core.check(error, "report")
        finally:
            _events.give_back(slot)
        if not self._core.threads:
            self._core.wake()

    def emit(self, name: str, **fields: Any) -> None:
        """Tells every policy that something happened: on_event handlers are asked.

        >>> engine.emit("db.failover", cluster="main", seconds=3)
        """
        text = _events.json_text(fields)
        with self._core as handle:
            error = lib.parry_emit(handle, _events.encode(name), text)
        self._core.check(error, f"emit {name}")
        if not self._core.threads:
            self._core.wake()

    # ---- functions and guards --------------------------------------------------------------------------------------------

    def guard(self, target: str, *, route: Optional[str] = None, classify: Optional[_guard.Classify] = None,
              answer: Optional[Callable[[Response], Any]] = None) -> Callable[[F], F]:
        """Puts a function under the policies: they say whether and when it is tried again, and where.

        >>> @engine.guard(target="db/primary")
        ... def load(user):
        ...     return connect(parry.attempt().target).load(user)

        The target's provider is declared with `host = true` in init.lua; `route` is the path by which a route is found, "/" +
        target unless given. Each attempt runs the function: plain ones in the caller's thread, async ones in the caller's
        loop. What it raises is told to the policies as describe() sees it; `classify(exception)` may give a dict that says
        more (or None). When they give up, the last exception is raised as it was, its __cause__ the CallError with the
        explanation. A policy that answers itself (`respond`) has its Response returned, or what `answer` makes of it.

        An attempt that has no more time is cancelled when it is async. A plain one cannot be; should it end well after all,
        its result is returned.
        """
        return _guard.decorator(self, target, route or "/" + target, classify, answer)

    def function(self, name: str, *, any_thread: bool = False) -> Callable[[F], F]:
        """Makes a function known to policies: host.call(name, arguments). It is given the arguments, decoded, and what it
        returns goes back as JSON. What it raises, the policy sees as nil, err.

        >>> @engine.function("plan_of")
        ... def plan_of(user):
        ...     return PLANS.get(user, "free")

        It runs on a thread of this package, or in the loop when it is async. With any_thread it runs at once, wherever the
        policy does: it must be quick and guard its own data, may use nothing of the engine, and decisions need not wait.
        """
        def register(function: F) -> F:
            self.register(name, function, any_thread=any_thread)
            return function
        return register

    def register(self, name: str, function: Optional[Callable[[Any], Any]], *, any_thread: bool = False) -> None:
        """What the decorator does; None takes the name back."""
        core, callback, made = self._core, _ffi.HostFunction(), None
        if function is not None:
            made = _functions.Function(core, self._runners, name, function, any_thread)
            callback = _functions.on_function
        key = core.names.get(name, 0)  # the same for whoever bears the name: C may still come by for the one before
        if not key:
            key = _core.register(made)
            core.keys.append(key)
            core.names[name] = key
        before = _core.look_up(key)
        if made is not None:
            _core.replace(key, made)
        try:
            with core as handle:
                error = lib.parry_register(handle, _events.encode(name), callback, key,
                                           _ffi.ANY_THREAD if any_thread else 0)
            core.check(error, f"function {name!r}")
        except BaseException:
            _core.replace(key, before)
            raise
        running = _core._running_loop()
        if running is not None:
            self._runners.home = running
        if function is not None and not any_thread:
            core.start_thread()

    # ---- the engine itself -------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Reads the policies again; returns when they are taken over, also when nothing had changed. PolicyError: they were
        refused, and the old ones go on."""
        core, found = self._core, [(_ffi.EREENTRANT, [""])]

        def load() -> None:
            with core as handle:
                error = lib.parry_reload(handle, 1)
                found[0] = error, _findings(handle) if error == _ffi.EPOLICY else []

        if core.threads:
            load()
        else:
            core.on_driver(load)  # where parry's work is done then
        error, findings = found[0]
        if error == _ffi.EPOLICY:
            raise _errors.PolicyError(findings)
        core.check(error, "reload")

    async def areload(self) -> None:
        """reload() for asyncio."""
        await asyncio.get_running_loop().run_in_executor(None, self.reload)

    @property
    def findings(self) -> List[str]:
        """What the last load or reload found, one "file:line: text" each: warnings, when it was taken over."""
        with self._core as handle:
            return _findings(handle)

    def status(self) -> Status:
        """How the engine is: what serves, how often it was reloaded, what is open."""
        told = _ffi.Status(size=ctypes.sizeof(_ffi.Status))
        with self._core as handle:
            error = lib.parry_status(handle, ctypes.byref(told))
        self._core.check(error, "status")
        return _decision.status_of(told)

    @property
    def generation(self) -> str:
        """Content hash of the policies that serve."""
        return self.status().generation

    def metrics(self) -> Metrics:
        """Every sample as it stands now."""
        found = Metrics()
        key = _core.register(found)
        try:
            with self._core as handle:
                error = lib.parry_metrics(handle, _on_sample, key)
        finally:
            _core.unregister(key)
        self._core.check(error, "metrics")
        return found


class _AsyncStreamContext:
    """What astream() gives: `async with` it, or await it for an AsyncStream to close oneself."""

    def __init__(self, engine: Engine, start: Callable[[], Call], raise_for_outcome: bool):
        self._engine = engine
        self._start = start
        self._raise = raise_for_outcome
        self._stream: Optional[AsyncStream] = None

    async def _open(self) -> AsyncStream:
        call = self._start()
        stream = AsyncStream(call, self._engine)
        try:
            await call.until(call.has_head)
            if self._raise and (call.status >= 400 or call.headers is None):
                call.read_on(self._engine._max_answer)
                await call.until(call.is_whole)
                if call.too_large:
                    call.cancel()
                    await call.until(call.is_over)
                self._engine._answer(call, True)
        except BaseException:
            call.cancel()
            raise
        return stream

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStream:
        self._stream = await self._open()
        return self._stream

    async def __aexit__(self, *_: Any) -> None:
        if self._stream is not None:
            await self._stream.aclose()


class _Waiting:
    """A decision that is pending."""

    def __init__(self, core: _core.Core, waiter: Any):
        self.core = core
        self.waiter = waiter
        self.decision: Optional[Decision] = None
        self.error: Optional[BaseException] = None

    def is_over(self) -> bool:
        return self.decision is not None or self.error is not None

    def result(self) -> Decision:
        if self.error is not None:
            raise self.error
        assert self.decision is not None
        return self.decision


class _Told:
    """Who is told of what."""

    def __init__(self, log: Optional[Log], alert: Optional[Callable[[Alert], Any]],
                 reloaded: Optional[Callable[[Reload], Any]]):
        self.alert = alert
        self.reloaded = reloaded
        self.log: Optional[Callable[[Dict[str, Any]], Any]] = None
        if isinstance(log, logging.Logger):
            self.log = _Logger(log)
        elif log is not None:
            self.log = log


class _Logger:
    """JSON lines into a logging.Logger: `msg` is the message, what else the line says is `record.parry`."""

    def __init__(self, logger: logging.Logger):
        self.logger = logger

    def __call__(self, line: Dict[str, Any]) -> None:
        level = _LOGGING[min(LEVELS.get(str(line.get("level")), 1), 3)]
        if not self.logger.isEnabledFor(level):
            return
        rest = {name: value for name, value in line.items() if name not in ("ts", "level", "msg")}
        said = " ".join(f"{name}={value}" for name, value in rest.items())
        self.logger.log(level, "%s%s", line.get("msg", ""), f" {said}" if said else "", extra={"parry": rest})


def _findings(handle: Any) -> List[str]:
    size = 4096
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = lib.parry_findings(handle, buffer, size)
        if needed < size:
            return buffer.value.decode("utf-8", "replace").splitlines()
        size = needed + 1


def _path(path: Optional[Path]) -> Optional[bytes]:
    return None if path is None else _events.whole(os.fsencode(path))


# ---- callbacks ---------------------------------------------------------------------------------------------------------


def _tell(user: int, who: str, make: Callable[[], Any]) -> None:
    told = _core.look_up(user)
    function = getattr(told, who, None)
    if function is None:
        return
    try:
        function(make())
    except BaseException:  # nobody called for it: told as Python tells of such
        _core.unraisable(f"{who}=")


@_ffi.LogFunction
def _on_log(user: int, level: int, line: int, size: int) -> None:
    _tell(user, "log", lambda: json.loads(ctypes.string_at(line, size)))


@_ffi.AlertFunction
def _on_alert(user: int, told: Any) -> None:
    def make() -> Alert:
        a = told[0]
        return Alert(_call.text(a.key), _call.text(a.sink), _call.text(a.severity), _call.text(a.title),
                     _call.text(a.text), _call.text(a.cause), bool(a.resolved), a.count)
    _tell(user, "alert", make)


@_ffi.ReloadedFunction
def _on_reloaded(user: int, told: Any) -> None:
    def make() -> Reload:
        info = told[0]
        return Reload(info.error == _ffi.OK, _call.text(info.generation), _call.text(info.findings).splitlines(),
                      bool(info.rolled_back))
    _tell(user, "reloaded", make)


_no_ready = _ffi.ReadyFunction()


@_ffi.ReadyFunction
def _on_ready(user: int, told: Any) -> None:
    waiting = _core.unregister(user)
    try:
        try:
            decision, error = _decision.decision_of(told[0]), None
        except Exception as problem:
            decision, error = None, problem
        with waiting.waiter:
            waiting.decision, waiting.error = decision, error
            waiting.waiter.wake()
    except BaseException as interrupt:
        if waiting is not None:
            waiting.core.interrupt = interrupt


@_ffi.SampleFunction
def _on_sample(user: int, told: Any) -> None:
    try:
        _core.look_up(user).append(_decision.sample_of(told[0]))
    except Exception:
        _core.unraisable("metrics")

