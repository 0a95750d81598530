"""Transports for httpx, so that every SDK that is built on it is under the policies, with no gateway running.

>>> client = openai.OpenAI(base_url="http://parry/v1", api_key="-",
...                        http_client=httpx.Client(transport=parry.httpx.ParryTransport(engine)))

The URL's path and query find the route, as in the gateway; its host is not used, and no connection is made to it. What comes
back:

  a good answer        as it came, streamed; reading slowly holds the provider back, closing ends the call
  a failed call        the HTTP answer that a client of the gateway would get, in the SDK's dialect: status, Retry-After, body;
                       with `x-should-retry: false`, because the policies have already tried what made sense
  a broken stream      its error event (SDKs raise for it), then httpx.RemoteProtocolError
  a cancelled call     httpx.ReadError, e.g. when the engine was closed

With `transport_errors=True` a call that failed as `timeout` or `network` without an answer of the provider's raises
httpx.ReadTimeout or httpx.ConnectError instead of a 504 or 502, for programs that are written so. Do not use that with SDKs
that retry by themselves: they cannot be told that it has been done.

httpx's own timeouts are not used: the route's deadline counts, which allows for attempts and waits.
"""

from __future__ import annotations

from typing import Any, AsyncIterator, Iterator, List, Optional, Tuple

try:
    import httpx
except ImportError as problem:  # pragma: no cover
    raise ImportError("parry.httpx needs httpx: pip install httpx") from problem

from . import _call, _core, _errors
from ._call import Call
from ._engine import Engine

__all__ = ["AsyncParryTransport", "ParryTransport"]

_OWN = {b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive", b"te", b"upgrade"}
_ERROR_KEPT = 1024 * 1024  # of an error's body, before it is given on as a stream


class _Transport:
    def __init__(self, engine: Engine, *, target: Optional[str] = None, transport_errors: bool = False):
        """`target`: "provider/model" of each call's first attempt; None: as the route says."""
        self._engine = engine
        self._target = target
        self._transport_errors = transport_errors

    def _start(self, waiter: Any, request: httpx.Request, body: bytes) -> Call:
        headers: List[Tuple[Any, Any]] = [(name, value) for name, value in request.headers.raw
                                          if name.lower() not in _OWN]
        call = Call(self._engine._core, waiter, paused_by_reader=True)
        try:
            call.start(method=request.method, path=request.url.raw_path.decode("ascii"), target=self._target,
                       headers=headers, body=body, ops=_call.HTTP_OPS)
        except _errors.Error as error:
            raise _refused(error, request) from error
        return call

    def _head(self, call: Call, request: httpx.Request) -> Tuple[int, List[Tuple[bytes, bytes]]]:
        """Status and headers to give, or the exception."""
        outcome = call.outcome
        if call.error is not None:
            raise httpx.ReadError(f"{call.error!r} in a callback", request=request) from call.error
        if outcome is not None and not outcome.ok:
            failure = _errors.from_outcome(outcome, call.headers or ())
            if call.headers is None:
                raise httpx.ReadError(str(failure), request=request) from failure
            if self._transport_errors and outcome.category == "timeout":
                raise httpx.ReadTimeout(str(failure), request=request) from failure
            if self._transport_errors and outcome.category == "network":
                raise httpx.ConnectError(str(failure), request=request) from failure
        headers = [(name.encode("latin-1"), value.encode("utf-8", "surrogateescape"))
                   for name, value in call.headers or ()]
        if call.status >= 400:
            headers = [pair for pair in headers if pair[0].lower() != b"x-should-retry"]
            headers.append((b"x-should-retry", b"false"))
        return call.status, headers

    @staticmethod
    def _waits_for_more(call: Call) -> bool:
        """An error's outcome tells how to give it."""
        return call.outcome is None and call.status >= 400 and call.buffered < _ERROR_KEPT and not call.paused


def _refused(error: _errors.Error, request: httpx.Request) -> httpx.TransportError:
    return httpx.TransportError(str(error), request=request)


def _check_end(call: Call, request: httpx.Request) -> None:
    outcome = call.outcome
    if call.error is not None:
        raise httpx.ReadError(f"{call.error!r} in a callback", request=request) from call.error
    if outcome is None or outcome.ok and not outcome.truncated:
        return
    if call.status >= 400 and not outcome.truncated and outcome.category != "cancelled":
        return  # the answer says it
    failure = _errors.from_outcome(outcome, call.headers or ())
    kind = httpx.ReadError if outcome.category == "cancelled" else httpx.RemoteProtocolError
    raise kind(f"the answer broke off: {failure}", request=request) from failure


class _Body(httpx.SyncByteStream):
    def __init__(self, call: Call, request: httpx.Request, engine: Engine):
        self._call = call
        self._request = request
        self._engine = engine  # which lives as long as its answers are read

    def __del__(self) -> None:
        self._call.drop()

    def __iter__(self) -> Iterator[bytes]:
        call = self._call
        while True:
            call.wait_until(call.has_data)
            data = call.take()
            if not data:
                break
            yield data
        _check_end(call, self._request)

    def close(self) -> None:
        self._call.cancel()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, call: Call, request: httpx.Request, engine: Engine):
        self._call = call
        self._request = request
        self._engine = engine

    def __del__(self) -> None:
        self._call.drop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        while True:
            await call.until(call.has_data)
            data = call.take()
            if not data:
                break
            yield data
        _check_end(call, self._request)

    async def aclose(self) -> None:
        self._call.cancel()


class ParryTransport(_Transport, httpx.BaseTransport):
    """For httpx.Client.

    >>> client = httpx.Client(transport=ParryTransport(engine), base_url="http://parry")
    >>> client.post("/v1/chat/completions", json=question)
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            self._engine._core.drive_for_thread()
        except _errors.Error as error:
            raise _refused(error, request) from error
        call = self._start(_core.ThreadWaiter(), request, request.read())
        try:
            call.wait_until(lambda: call.has_head() and not self._waits_for_more(call))
            status, headers = self._head(call, request)
        except BaseException:
            call.cancel()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(call, request, self._engine), request=request,
                              extensions={"parry_call": call})

    def close(self) -> None:
        """The engine stays open: it is the program's."""


class AsyncParryTransport(_Transport, httpx.AsyncBaseTransport):
    """For httpx.AsyncClient, on asyncio.

    >>> client = httpx.AsyncClient(transport=AsyncParryTransport(engine), base_url="http://parry")
    >>> await client.post("/v1/chat/completions", json=question)
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            loop = self._engine._use_loop()
        except _errors.Error as error:
            raise _refused(error, request) from error
        call = self._start(_core.LoopWaiter(loop), request, await request.aread())
        try:
            await call.until(lambda: call.has_head() and not self._waits_for_more(call))
            status, headers = self._head(call, request)
        except BaseException:
            call.cancel()
            raise
        return httpx.Response(status, headers=headers, stream=_AsyncBody(call, request, self._engine), request=request,
                              extensions={"parry_call": call})

    async def aclose(self) -> None:
        """The engine stays open: it is the program's."""
