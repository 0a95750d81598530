"""What can go wrong: with a call (CallError and its kinds), and with the use of an engine (the others)."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple, Type

from . import _ffi


class Error(Exception):
    """Everything that this package raises by itself. `code` is parry.h's number, 0 when there is none."""

    code = 0


# ---- of the host's own making -----------------------------------------------------------------------------------


class ArgumentError(Error, ValueError):
    """An argument is wrong."""

    code = _ffi.EINVAL


class PolicyError(Error):
    """The policies were refused. `findings` has one "file:line: text" each.

    >>> try:
    ...     parry.Engine(init_lua="route 5")
    ... except parry.PolicyError as error:
    ...     print(error.findings[0])
    """

    code = _ffi.EPOLICY

    def __init__(self, findings: List[str]):
        super().__init__("\n".join(findings) or "the policies were refused")
        self.findings = findings

    def __reduce__(self) -> Any:
        return PolicyError, (self.findings,)


class NoMemoryError(Error, MemoryError):
    """Memory is short; it cost this call only."""

    code = _ffi.ENOMEM


class GoneError(Error, LookupError):
    """No such call, attempt or request; it may have ended."""

    code = _ffi.ENOENT


class ReentrantError(Error, RuntimeError):
    """Not from inside a callback."""

    code = _ffi.EREENTRANT


class SystemRefusedError(Error, OSError):
    """The system refused descriptors, threads or memory."""

    code = _ffi.ESYSTEM


class BusyError(Error):
    """Too many calls are open, or too much of their answers was not yet read (`max_calls`, `max_buffered`)."""

    code = _ffi.BUSY


class ForkedError(Error, RuntimeError):
    """The engine belongs to the parent process: make one in each worker, after the fork."""

    code = _ffi.EFORKED


class ClosedError(Error, RuntimeError):
    """The engine was closed."""

    code = _ffi.EFREED


_BY_CODE: Dict[int, Type[Error]] = {
    kind.code: kind
    for kind in (ArgumentError, NoMemoryError, GoneError, ReentrantError, SystemRefusedError, BusyError, ForkedError,
                 ClosedError)
}
_HINTS = {
    _ffi.EFORKED: "make the engine after the fork, in each worker (uvicorn: in lifespan; gunicorn: in post_fork)",
    _ffi.BUSY: "read or close answers first, or raise max_calls or max_buffered",
}


def from_code(code: int, doing: str) -> Error:
    """The exception for one of parry.h's errors."""
    text = f"{doing}: {_ffi.lib.parry_strerror(code).decode()}"
    if code in _HINTS:
        text += f"; {_HINTS[code]}"
    error = _BY_CODE.get(code, Error)(text)
    error.code = code
    return error


# ---- of calls ---------------------------------------------------------------------------------------------------


class Outcome:
    """How a call ended."""

    __slots__ = ("ok", "status", "category", "code", "message", "why", "retry_after", "attempts", "target", "call_id",
                 "generation", "truncated")

    #: A good answer, or a policy's own below 400.
    ok: bool
    #: What a client would have been told.
    status: int
    #: "none" when ok, else a word of the failure vocabulary: "rate_limit", "timeout", ...
    category: str
    #: The provider's word for it.
    code: str
    message: str
    #: The last words of the policies about it.
    why: str
    #: Seconds until it may work again; None: not known.
    retry_after: Optional[float]
    attempts: int
    #: "provider/model" of the last attempt.
    target: str
    #: As in logs and the parry-call-id header.
    call_id: str
    generation: str
    #: The body given is not whole.
    truncated: bool

    def __init__(self, **fields: Any):
        for name in self.__slots__:
            setattr(self, name, fields[name])

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"Outcome({shown})"


class CallError(Error):
    """A call that failed for good: the policies had no further idea. Each category has its class, so that
    `except parry.RateLimitError` works; TimeoutError_ and NetworkError are Python's TimeoutError and ConnectionError, too.

    `body` and `headers` are those of the answer that a client would have been given.
    """

    #: The word of the failure vocabulary that the class stands for.
    category = "unknown"

    def __init__(self, outcome: Outcome, headers: Tuple[Tuple[str, str], ...] = (), body: bytes = b""):
        self.outcome = outcome
        self.category = outcome.category
        self.status = outcome.status
        self.code = outcome.code  # type: ignore[assignment]
        self.message = outcome.message
        self.why = outcome.why
        self.retry_after = outcome.retry_after
        self.attempts = outcome.attempts
        self.target = outcome.target
        self.call_id = outcome.call_id
        self.headers = headers
        self.body = body
        super().__init__(self.explanation)

    def __str__(self) -> str:
        return self.explanation

    def __reduce__(self) -> Any:
        return _unpickle, ({name: getattr(self.outcome, name) for name in Outcome.__slots__}, self.headers, self.body)

    def json(self) -> Any:
        """The body of the answer, decoded."""
        return json.loads(self.body)

    @property
    def explanation(self) -> str:
        """One line for people: what failed, how often, where, and what the policies said.

        "rate_limit (429 rate_limit_exceeded) after 4 attempts, the last at kimi/k2: slow down. retry: attempt 4 of 4. It may
        work again in 12 s. [c_0_1]"
        """
        detail = " ".join(filter(None, (str(self.status or ""), str(self.code or ""))))
        text = self.category + (f" ({detail})" if detail else "")
        text += f" after {self.attempts} attempt{'' if self.attempts == 1 else 's'}"
        if self.target:
            text += f", the last at {self.target}" if self.attempts != 1 else f" at {self.target}"
        if self.message:
            text += f": {self.message}"
        text = text.rstrip(".") + "."
        if self.why:
            text += f" {self.why.rstrip('.')}."
        if self.retry_after is not None:
            text += f" It may work again in {self.retry_after:g} s."
        return text + (f" [{self.call_id}]" if self.call_id else "")


class AuthError(CallError):
    """The credential is missing, wrong or expired."""

    category = "auth"


class PermissionError_(CallError, PermissionError):
    """The credential may not use this model or feature."""

    category = "permission"


class BillingError(CallError):
    """Quota or balance is used up."""

    category = "billing"


class RateLimitError(CallError):
    """Too many requests or tokens in a window."""

    category = "rate_limit"


class OverloadedError(CallError):
    """The provider is short of capacity."""

    category = "overloaded"


class ServerError(CallError):
    """The provider failed."""

    category = "server"


class TimeoutError_(CallError, TimeoutError):
    """No answer in time."""

    category = "timeout"


class NetworkError(CallError, ConnectionError):
    """The connection could not be made, or broke."""

    category = "network"


class InvalidRequestError(CallError):
    """The request itself is wrong."""

    category = "invalid_request"


class NotFoundError(CallError):
    """No such model or path."""

    category = "not_found"


class ContextLengthError(CallError):
    """The prompt is longer than the model takes."""

    category = "context_length"


class ContentPolicyError(CallError):
    """Refused by the provider's content rules."""

    category = "content_policy"


class ConflictError(CallError):
    """Another request is in the way."""

    category = "conflict"


class PayloadTooLargeError(CallError):
    """The request, or an answer that was to be held in memory, is too large."""

    category = "payload_too_large"


class CancelledError_(CallError):
    """The call was cancelled, or its engine closed."""

    category = "cancelled"


class UnknownError(CallError):
    """Nobody could say."""

    category = "unknown"


BY_CATEGORY: Dict[str, Type[CallError]] = {kind.category: kind for kind in CallError.__subclasses__()}
CATEGORIES = tuple(BY_CATEGORY)


def from_outcome(outcome: Outcome, headers: Tuple[Tuple[str, str], ...] = (), body: bytes = b"") -> CallError:
    return BY_CATEGORY.get(outcome.category, CallError)(outcome, headers, body)


def _unpickle(fields: Dict[str, Any], headers: Tuple[Tuple[str, str], ...], body: bytes) -> CallError:
    return from_outcome(Outcome(**fields), headers, body)
