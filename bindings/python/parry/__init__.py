"""parry: when a call goes wrong, a script that can be edited while it runs decides what happens next.

>>> import parry
>>> with parry.Engine("/etc/parry/policies") as engine:
...     answer = engine.call("/v1/chat/completions", json={"model": "kimi-k2", "messages": [...]})

  Engine.call, stream, acall, astream   hand over an HTTP call
  Engine.guard                          any function of yours, tried again as the policies say
  Engine.decide, report                 keep everything to yourself and ask "this failed: now what?"
  Engine.emit, function                 tell the policies of what happened; let them ask you
  parry.httpx                           transports for httpx, and so for the openai and anthropic SDKs
"""

from ._call import Attempt, AsyncStream, Response, Stream
from ._decision import Action, Decision, Metrics, Sample, Status
from ._engine import Alert, Engine, Reload
from ._errors import (CATEGORIES, ArgumentError, AuthError, BillingError, BusyError, CallError, CancelledError_,
                      ClosedError, ConflictError, ContentPolicyError, ContextLengthError, Error, ForkedError, GoneError,
                      InvalidRequestError, NetworkError, NoMemoryError, NotFoundError, Outcome, OverloadedError,
                      PayloadTooLargeError, PermissionError_, PolicyError, RateLimitError, ReentrantError, ServerError,
                      SystemRefusedError, TimeoutError_, UnknownError)
from ._events import describe
from ._ffi import lib as _lib
from ._functions import HostFunctionError
from ._guard import attempt

#: The version of the library that is running.
library_version: str = _lib.parry_version().decode()
__version__ = "0.1.0"

__all__ = [
    "Action", "Alert", "ArgumentError", "AsyncStream", "Attempt", "AuthError", "BillingError", "BusyError",
    "CATEGORIES", "CallError", "CancelledError_", "ClosedError", "ConflictError", "ContentPolicyError",
    "ContextLengthError", "Decision", "Engine", "Error", "ForkedError", "GoneError", "HostFunctionError",
    "InvalidRequestError", "Metrics", "NetworkError", "NoMemoryError", "NotFoundError", "Outcome",
    "OverloadedError", "PayloadTooLargeError", "PermissionError_", "PolicyError", "RateLimitError",
    "ReentrantError", "Reload", "Response", "Sample", "ServerError", "Status", "Stream", "SystemRefusedError",
    "TimeoutError_", "UnknownError", "attempt", "describe",
]


def __getattr__(name: str) -> object:
    """`parry.httpx` is loaded when it is used: httpx is needed for nothing else."""
    if name == "httpx":
        import importlib
        return importlib.import_module(".httpx", __name__)
    raise AttributeError(f"module 'parry' has no attribute {name!r}")
