"""parry.h in ctypes: structs, functions, constants, and where the library is found. Nothing here thinks.

The layouts are compared with the C compiler's by tests/test_layout.py. Every function releases the interpreter's lock while
it runs (ctypes.CDLL), which callbacks from parry's threads depend on.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_int, c_size_t, c_uint, c_uint64, c_ulong,
                    c_void_p)
from typing import Iterator, Optional

VERSION = "0.1"  # major.minor of the header that this file spells

OK, EINVAL, ENOMEM, EPOLICY, ENOENT, EREENTRANT, PENDING, ESYSTEM, BUSY, EFORKED, EFREED = range(0, -11, -1)
PAUSE = 1
ANY_THREAD = 1


class Header(Structure):
    _fields_ = [("name", c_char_p), ("value", c_char_p)]


class Alert(Structure):
    _fields_ = [("size", c_size_t), ("key", c_char_p), ("sink", c_char_p), ("severity", c_char_p), ("title", c_char_p),
                ("text", c_char_p), ("cause", c_char_p), ("resolved", c_int), ("count", c_ulong)]


class ReloadInfo(Structure):
    _fields_ = [("size", c_size_t), ("error", c_int), ("generation", c_char_p), ("findings", c_char_p),
                ("rolled_back", c_int)]


LogFunction = CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_size_t)
AlertFunction = CFUNCTYPE(None, c_void_p, POINTER(Alert))
ReloadedFunction = CFUNCTYPE(None, c_void_p, POINTER(ReloadInfo))


class Options(Structure):
    _fields_ = [("size", c_size_t), ("policy_dir", c_char_p), ("init_lua", c_char_p), ("share_dir", c_char_p),
                ("state_dir", c_char_p), ("ca_file", c_char_p), ("secrets", POINTER(Header)),
                ("secret_count", c_size_t), ("threads", c_uint),
                ("deciders", c_uint), ("max_calls", c_size_t), ("max_buffered", c_size_t), ("watch", c_int),
                ("log_level", c_int), ("user", c_void_p), ("log", LogFunction), ("alert", AlertFunction),
                ("reloaded", ReloadedFunction)]


class Status(Structure):
    _fields_ = [("size", c_size_t), ("generation", c_char * 65), ("version", c_char * 15), ("loaded_at", c_double),
                ("policies", c_uint), ("policy_tests", c_uint), ("reloads", c_ulong), ("reloads_refused", c_ulong),
                ("rollbacks", c_ulong), ("policy_faults", c_ulong), ("log_lines_lost", c_ulong), ("open", c_size_t),
                ("buffered", c_size_t)]


class Sample(Structure):
    _fields_ = [("size", c_size_t), ("name", c_char_p), ("type", c_char_p), ("help", c_char_p), ("labels", c_char_p),
                ("value", c_double)]


SampleFunction = CFUNCTYPE(None, c_void_p, POINTER(Sample))


class Id(Structure):
    """parry_call_id and parry_request_id."""

    _fields_ = [("value", c_uint64)]


class Request(Structure):
    _fields_ = [("size", c_size_t), ("method", c_char_p), ("path", c_char_p), ("target", c_char_p),
                ("headers", POINTER(Header)), ("header_count", c_size_t), ("body", c_char_p), ("body_size", c_size_t)]


class Outcome(Structure):
    _fields_ = [("size", c_size_t), ("ok", c_int), ("status", c_int), ("category", c_char_p), ("code", c_char_p),
                ("message", c_char_p), ("why", c_char_p), ("retry_after", c_double), ("attempts", c_uint),
                ("target", c_char_p), ("call_id", c_char_p), ("generation", c_char_p), ("truncated", c_int)]


class Attempt(Structure):
    _fields_ = [("size", c_size_t), ("call", Id), ("number", c_uint), ("target", c_char_p), ("provider", c_char_p),
                ("model", c_char_p), ("deadline_left", c_double), ("body", c_void_p), ("body_size", c_size_t)]


HeadersFunction = CFUNCTYPE(None, c_void_p, c_int, POINTER(Header), c_size_t)
DataFunction = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
DoneFunction = CFUNCTYPE(None, c_void_p, POINTER(Outcome))
AttemptFunction = CFUNCTYPE(None, c_void_p, POINTER(Attempt))
AbandonFunction = CFUNCTYPE(None, c_void_p, Id, c_uint)


class CallOps(Structure):
    _fields_ = [("size", c_size_t), ("on_headers", HeadersFunction), ("on_data", DataFunction), ("on_done", DoneFunction),
                ("on_attempt", AttemptFunction), ("on_abandon", AbandonFunction)]


class Event(Structure):
    _fields_ = [("size", c_size_t), ("ok", c_int), ("status", c_int), ("curl_code", c_int), ("category", c_char_p),
                ("code", c_char_p), ("message", c_char_p), ("retry_after", c_double), ("not_sent", c_int),
                ("headers", POINTER(Header)), ("header_count", c_size_t), ("body", c_char_p), ("body_size", c_size_t),
                ("route", c_char_p), ("target", c_char_p), ("attempt", c_uint), ("deadline_left", c_double),
                ("not_repeatable", c_int), ("seconds", c_double), ("name", c_char_p), ("fields", c_char_p)]


class Decision(Structure):
    _fields_ = [("size", c_size_t), ("action", c_int), ("status", c_int), ("after", c_double), ("target", c_char * 256),
                ("category", c_char * 32), ("policy", c_char * 64), ("why", c_char * 256), ("body", c_void_p),
                ("body_capacity", c_size_t), ("body_size", c_size_t)]


ReadyFunction = CFUNCTYPE(None, c_void_p, POINTER(Decision))
HostFunction = CFUNCTYPE(None, c_void_p, Id, c_void_p, c_size_t)

STRUCTS = {  # the C names, for the test that compares layouts
    "parry_header": Header, "parry_alert": Alert, "parry_reload_info": ReloadInfo, "parry_options": Options,
    "parry_status": Status, "parry_sample": Sample, "parry_request": Request, "parry_outcome": Outcome,
    "parry_attempt": Attempt, "parry_call_ops": CallOps, "parry_event": Event, "parry_decision": Decision,
}

_FUNCTIONS = {
    "parry_version": (c_char_p, []),
    "parry_strerror": (c_char_p, [c_int]),
    "parry_new": (c_int, [POINTER(c_void_p), POINTER(Options)]),
    "parry_free": (c_int, [c_void_p]),
    "parry_run": (c_int, [c_void_p, c_double]),
    "parry_fd": (c_int, [c_void_p]),
    "parry_dispatch": (c_int, [c_void_p]),
    "parry_wakeup": (None, [c_void_p]),
    "parry_reload": (c_int, [c_void_p, c_int]),
    "parry_findings": (c_size_t, [c_void_p, c_void_p, c_size_t]),
    "parry_status": (c_int, [c_void_p, POINTER(Status)]),
    "parry_metrics": (c_int, [c_void_p, SampleFunction, c_void_p]),
    "parry_call": (c_int, [c_void_p, POINTER(Request), POINTER(CallOps), c_void_p, POINTER(Id)]),
    "parry_call_resume": (c_int, [c_void_p, Id]),
    "parry_call_cancel": (c_int, [c_void_p, Id]),
    "parry_attempt_done": (c_int, [c_void_p, Id, c_uint, POINTER(Event)]),
    "parry_decide": (c_int, [c_void_p, POINTER(Event), POINTER(Decision), ReadyFunction, c_void_p]),
    "parry_report": (c_int, [c_void_p, POINTER(Event)]),
    "parry_emit": (c_int, [c_void_p, c_char_p, c_char_p]),
    "parry_register": (c_int, [c_void_p, c_char_p, HostFunction, c_void_p, c_uint]),
    "parry_reply": (c_int, [c_void_p, Id, c_char_p, c_char_p]),
}

# ---- finding the library ----------------------------------------------------------------------------------------

_HERE = pathlib.Path(__file__).resolve().parent
_BUNDLED = _HERE / "_lib" / "libparry.so"
#: Policies, dialects and libraries that a wheel brings with it; None when the library is the system's.
bundled_share: Optional[str] = None


def _candidates() -> Iterator[str]:
    """Where the library may be, the surest first."""
    if os.environ.get("PARRY_LIBRARY"):
        yield os.environ["PARRY_LIBRARY"]  # a wish is not second-guessed
        return
    if _BUNDLED.exists():
        yield str(_BUNDLED)
        return
    yield f"libparry.so.{VERSION}"  # as the dynamic loader finds it: LD_LIBRARY_PATH, ldconfig
    try:
        found = subprocess.run(["pkg-config", "--variable=libdir", "parry"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return
    if found.returncode == 0 and found.stdout.strip():
        yield os.path.join(found.stdout.strip(), f"libparry.so.{VERSION}")


def _load() -> ctypes.CDLL:
    global bundled_share
    problems = []
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            library.parry_version.restype = c_char_p
            version = library.parry_version().decode()
        except (OSError, AttributeError) as problem:
            problems.append(f"  {path}: {problem}")
            continue
        if version.split(".")[:2] != VERSION.split("."):
            raise ImportError(f"{path} is libparry {version}, and this package is for {VERSION}.x: install the ones that "
                              "belong together (PARRY_LIBRARY names another library)")
        if path == str(_BUNDLED):
            share = _HERE / "_share" / "policies"
            bundled_share = str(share) if share.is_dir() else None
        return _declare(library, path, version)
    raise ImportError("libparry was not found. Install a wheel that has it, or the package libparry, or name the file in "
                      "PARRY_LIBRARY. Tried:\n" + "\n".join(problems))


def _declare(library: ctypes.CDLL, path: str, version: str) -> ctypes.CDLL:
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"{path} (libparry {version}) has no {name}: it is older than this package") from None
        function.restype, function.argtypes = result, arguments
    return library


lib = _load()
