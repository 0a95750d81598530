"""Failures in parry's words: what an exception says about itself, and struct parry_event from keyword arguments.

Also the pool of structs that decisions are made with, so that asking allocates little.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from . import _errors, _ffi

Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]], None]

BODY_LOOKED_AT = 64 * 1024


def encode(text: Optional[str]) -> Optional[bytes]:
    return None if text is None else whole(text.encode("utf-8", "surrogateescape"))


def whole(text: bytes) -> bytes:
    """C would see no more than what is before a NUL."""
    if b"\0" in text:
        raise _errors.ArgumentError(f"a text has a NUL inside: {text[:80]!r}")
    return text


def safe(text: str) -> str:
    """Of a text that is nobody's argument: what can be told of it."""
    return text[:500].replace("\0", " ").encode("utf-8", "replace").decode()


def header_array(headers: Headers) -> Tuple[Any, int]:
    """An array of parry_header, and how many."""
    if not headers:
        return None, 0
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    raw = [(whole(n if isinstance(n, bytes) else str(n).encode("latin-1")),
            whole(v if isinstance(v, bytes) else str(v).encode("utf-8", "surrogateescape"))) for n, v in pairs]
    return (_ffi.Header * len(raw))(*raw), len(raw)


def json_text(value: Any) -> bytes:
    """ValueError for what JSON has no words for: NaN, half a surrogate pair."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


# ---- what exceptions say -----------------------------------------------------------------------------------------


def describe(exception: BaseException) -> Dict[str, Any]:
    """What an exception says about itself, as arguments of Engine.decide(). Known are parry's own, Python's timeouts and
    connection errors, httpx's, and whatever has `status_code` or a `response` (requests, openai, anthropic).

    >>> parry.describe(ConnectionRefusedError("no"))
    {'message': 'no', 'code': 'ConnectionRefusedError', 'category': 'network', 'not_sent': True}
    """
    told: Dict[str, Any] = {"message": sentence(exception), "code": safe(type(exception).__name__)}
    if isinstance(exception, _errors.CallError):
        told.update(category=exception.category, status=exception.status, code=exception.outcome.code or None,
                    message=exception.message, retry_after=exception.retry_after)
        return {name: value for name, value in told.items() if value}
    names = {str(kind.__module__).partition(".")[0] + "." + kind.__name__ for kind in type(exception).__mro__}
    response = _attribute(exception, "response")
    status = _status(exception, response)
    if status:
        told["status"] = status
        told.update(_answer(response))
    elif names & _TIMEOUTS or isinstance(exception, TimeoutError):
        told["category"] = "timeout"
    elif names & _NETWORK or isinstance(exception, (ConnectionError, EOFError)):
        told["category"] = "network"
    elif _error_of_names(exception):
        told["category"] = "network"
    if names & _NOT_SENT or isinstance(exception, ConnectionRefusedError) or _error_of_names(exception):
        told["not_sent"] = True
    return told


_TIMEOUTS = {"asyncio.TimeoutError", "concurrent.TimeoutError", "socket.timeout", "httpx.TimeoutException",
             "httpcore.TimeoutException", "requests.Timeout", "urllib3.TimeoutError", "openai.APITimeoutError",
             "anthropic.APITimeoutError"}
_NETWORK = {"httpx.TransportError", "httpcore.NetworkError", "httpcore.ProtocolError", "requests.ConnectionError",
            "urllib3.HTTPError", "openai.APIConnectionError", "anthropic.APIConnectionError", "ssl.SSLError"}
_NOT_SENT = {"httpx.ConnectError", "httpx.ConnectTimeout", "httpx.PoolTimeout", "requests.ConnectTimeout",
             "httpcore.ConnectError", "httpcore.ConnectTimeout", "socket.gaierror"}


def _error_of_names(exception: BaseException) -> bool:
    import socket
    return isinstance(exception, socket.gaierror)


def sentence(exception: BaseException) -> str:
    """Its text, whatever its __str__ does."""
    try:
        return safe(str(exception))
    except Exception:
        return safe(type(exception).__name__)


def _attribute(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a property may raise anything
        return None


def _status(exception: BaseException, response: Any) -> int:
    for holder, name in ((exception, "status_code"), (response, "status_code"), (exception, "status"),
                         (response, "status"), (exception, "code")):
        status = _attribute(holder, name)
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
            return int(status)
    return 0


def _answer(response: Any) -> Dict[str, Any]:
    """Headers and body of a response object, as far as they are there without reading anything."""
    told: Dict[str, Any] = {}
    try:
        headers = getattr(response, "headers", None)
        if headers is not None:
            told["headers"] = [(str(n), str(v)) for n, v in headers.items()]
    except Exception:
        pass
    try:
        body = getattr(response, "content", None)  # httpx raises when it was not read
        if isinstance(body, bytes):
            told["body"] = body
    except Exception:
        pass
    return told


# ---- structs ------------------------------------------------------------------------------------------------------

_TEXTS = ("category", "code", "message", "route", "target", "name")
_NUMBERS = ("status", "curl_code", "retry_after", "attempt", "deadline_left", "seconds")


class Slot:
    """The structs of one decision, used again and again. Whoever took one from the pool has it alone."""

    __slots__ = ("event", "decision", "event_ref", "decision_ref", "body", "view")

    def __init__(self) -> None:
        self.event = _ffi.Event()
        self.decision = _ffi.Decision()
        self.view = memoryview(self.event).cast("B")
        self.event_ref = ctypes.byref(self.event)
        self.decision_ref = ctypes.byref(self.decision)
        self.body = ctypes.create_string_buffer(BODY_LOOKED_AT)
        self.decision.size = ctypes.sizeof(_ffi.Decision)
        self.decision.body = ctypes.addressof(self.body)
        self.decision.body_capacity = BODY_LOOKED_AT


_pool: List[Slot] = []  # list.pop() and append() are atomic
_EMPTY = bytes(_ffi.Event(size=ctypes.sizeof(_ffi.Event)))


def take() -> Slot:
    try:
        return _pool.pop()
    except IndexError:
        return Slot()


def give_back(slot: Slot) -> None:
    if len(_pool) < 64:
        _pool.append(slot)


def fill(slot: Slot, told: Dict[str, Any]) -> Any:
    """Writes what `told` says (arguments of Engine.decide()) into the slot's event, and gives that; None is as not given."""
    event = slot.event
    slot.view[:] = _EMPTY  # a tenth of what memset() costs through ctypes
    for name, value in told.items():
        if value is None:
            continue
        writer = _WRITERS.get(name)
        if writer is None:
            raise TypeError(f"an event has no {name!r}; it has {', '.join(sorted(_WRITERS))}")
        writer(event, value)
    return event


def _write_headers(event: Any, value: Headers) -> None:
    array, count = header_array(value)
    if count:
        event.headers = ctypes.cast(array, ctypes.POINTER(_ffi.Header))
        event._array = array  # pointed at
    event.header_count = count


def _write_body(event: Any, value: Union[bytes, str]) -> None:
    body = value.encode() if isinstance(value, str) else bytes(value)
    body = body[:BODY_LOOKED_AT]
    event.body = body
    event.body_size = len(body)


def _writer(name: str) -> Callable[[Any, Any], None]:
    put: Callable[[Any, Any], None] = getattr(_ffi.Event, name).__set__
    if name not in _TEXTS:
        return put

    def write(event: Any, value: str) -> None:
        raw = value.encode() if value.isascii() else value.encode("utf-8", "surrogateescape")
        put(event, raw if b"\0" not in raw else whole(raw))
    return write


_WRITERS: Dict[str, Callable[[Any, Any], None]] = {name: _writer(name) for name in (*_TEXTS, *_NUMBERS)}
_WRITERS["ok"] = lambda event, value: setattr(event, "ok", int(value))
_WRITERS["not_sent"] = lambda event, value: setattr(event, "not_sent", int(value))
_WRITERS["repeatable"] = lambda event, value: setattr(event, "not_repeatable", int(not value))
_WRITERS["headers"] = _write_headers
_WRITERS["body"] = _write_body
_WRITERS["fields"] = lambda event, value: setattr(event, "fields", json_text(value))
