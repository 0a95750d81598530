"""What exceptions say about themselves."""

import asyncio
import socket
import types

import httpx
import pytest

import parry
from parry._events import _WRITERS


class WithStatus(Exception):
    status_code = 429


class WithResponse(Exception):
    response = types.SimpleNamespace(status_code=503, headers={"retry-after": "2"}, content=b'{"error": 1}')


class Response404(Exception):
    code = 404


REQUEST = httpx.Request("GET", "http://x/")
UNREAD = httpx.Response(502, stream=httpx.ByteStream(b"later"))


@pytest.mark.parametrize("error, expected", [
    (TimeoutError(), {"category": "timeout"}),
    (asyncio.TimeoutError(), {"category": "timeout"}),
    (socket.timeout(), {"category": "timeout"}),
    (ConnectionRefusedError(), {"category": "network", "not_sent": True}),
    (ConnectionResetError(), {"category": "network"}),
    (BrokenPipeError(), {"category": "network"}),
    (EOFError(), {"category": "network"}),
    (socket.gaierror(), {"category": "network", "not_sent": True}),
    (httpx.ReadTimeout("m"), {"category": "timeout"}),
    (httpx.ConnectTimeout("m"), {"category": "timeout", "not_sent": True}),
    (httpx.ConnectError("m"), {"category": "network", "not_sent": True}),
    (httpx.RemoteProtocolError("m"), {"category": "network"}),
    (httpx.HTTPStatusError("m", request=REQUEST, response=httpx.Response(429, headers={"a": "b"}, content=b"x")),
     {"status": 429, "body": b"x"}),
    (httpx.HTTPStatusError("m", request=REQUEST, response=UNREAD), {"status": 502}),
    (WithStatus(), {"status": 429}),
    (WithResponse(), {"status": 503, "headers": [("retry-after", "2")], "body": b'{"error": 1}'}),
    (Response404(), {"status": 404}),
    (ValueError("m"), {}),
])
def test_what_is_known(error, expected):
    told = parry.describe(error)
    assert told.pop("code") == type(error).__name__ and isinstance(told.pop("message"), str)
    if "headers" not in expected:
        told.pop("headers", None)
    assert told == expected and set(told) <= set(_WRITERS)


def test_one_that_cannot_be_printed():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert parry.describe(Silent())["message"] == "Silent"
