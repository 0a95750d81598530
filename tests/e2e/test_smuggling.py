"""Requests that two programs may read in two ways, against the real gateway.

Shows: what is malformed by RFC 9112 §§2-7, or only ambiguous, gets exactly one answer of the right status and a closed
connection, and neither the provider nor the request hidden behind it is ever reached; what is legal though rare is served
exactly once, and the next request on the connection is still understood. Each row is sent whole and byte by byte.
"""

import socket

import pytest

from harness import chunk, connect, ok

POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: parry\r\n"
BODY = b'{"model":"m","messages":[]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = chunk(BODY) + b"0\r\n\r\n"
LAST = b"0\r\n\r\n"
SMUGGLED = b"POST /v1/smuggled HTTP/1.1\r\nHost: parry\r\nContent-Length: 2\r\n\r\n{}"
# What follows on the same connection: answered when the row was understood, never when it was refused.
PROBE = b"GET /livez HTTP/1.1\r\nHost: parry\r\nConnection: close\r\n\r\n"


def post(*fields, body=BODY, line=POST, host=HOST):
    return line + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def chunks(body):
    return POST + HOST + CHUNKED + b"\r\n" + body


SIZE = LENGTH.rstrip()
REFUSED = {
    # --- two framings (RFC 9112 §6) ---
    "length and chunked": (400, post(b"Content-Length: 5", CHUNKED.rstrip(), body=LAST + SMUGGLED)),
    "chunked and length": (400, post(CHUNKED.rstrip(), b"Content-Length: 5", body=LAST + SMUGGLED)),
    "length over chunks": (400, post(b"Content-Length: 500", CHUNKED.rstrip(), body=CHUNKS)),
    "two equal lengths": (400, post(SIZE, SIZE)),
    "two different lengths": (400, post(b"Content-Length: 2", b"Content-Length: 200", body=b"{}" + SMUGGLED)),
    "two lengths in one field": (400, post(b"Content-Length: 2, 2", body=b"{}")),
    "lengths 2, 3 in one field": (400, post(b"Content-Length: 2, 3", body=b"{}")),
    "negative length": (400, post(b"Content-Length: -1")),
    "length with plus": (400, post(b"Content-Length: +2", body=b"{}")),
    "hexadecimal length": (400, post(b"Content-Length: 0x2", body=b"{}")),
    "length with letters": (400, post(b"Content-Length: 2x", body=b"{}")),
    "length with an inner space": (400, post(b"Content-Length: 2 7")),
    "length with a fraction": (400, post(b"Content-Length: 2.0", body=b"{}")),
    "empty length": (400, post(b"Content-Length: ", body=b"")),
    "length in quotes": (400, post(b'Content-Length: "2"', body=b"{}")),
    "length 2^64 + 2": (400, post(b"Content-Length: 18446744073709551618", body=b"{}")),
    "length 2^63": (400, post(b"Content-Length: 9223372036854775808", body=b"{}")),
    "length in other digits": (400, post("Content-Length: \u0662".encode(), body=b"{}")),
    "xchunked": (400, post(b"Transfer-Encoding: xchunked", body=CHUNKS)),
    "chunked behind a vertical tab": (400, post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS)),
    "chunked behind NUL": (400, post(b"Transfer-Encoding: \x00chunked", body=CHUNKS)),
    "chunked in quotes": (400, post(b'Transfer-Encoding: "chunked"', body=CHUNKS)),
    "gzip, chunked": (400, post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS)),
    "chunked, gzip": (400, post(b"Transfer-Encoding: chunked, gzip", body=CHUNKS)),
    "chunked, chunked": (400, post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS)),
    "chunked, identity": (400, post(b"Transfer-Encoding: chunked, identity", body=CHUNKS)),
    "identity": (400, post(b"Transfer-Encoding: identity", SIZE)),
    "encoding twice": (400, post(CHUNKED.rstrip(), b"Transfer-Encoding: identity", body=CHUNKS)),
    "chunked twice": (400, post(CHUNKED.rstrip(), CHUNKED.rstrip(), body=CHUNKS)),
    "empty encoding": (400, post(b"Transfer-Encoding:", SIZE)),
    "chunked with a parameter": (400, post(b"Transfer-Encoding: chunked;q=1", body=CHUNKS)),
    "chunked with a comma": (400, post(b"Transfer-Encoding: chunked,", body=CHUNKS)),
    "chunked in HTTP/1.0": (400, post(CHUNKED.rstrip(), body=CHUNKS, line=POST.replace(b"1.1", b"1.0"))),
    "space before the colon of an encoding": (400, post(b"Transfer-Encoding : chunked", SIZE, body=CHUNKS)),
    "space before the colon of a length": (400, post(b"Content-Length : 2", body=b"{}")),
    "tab before the colon": (400, post(SIZE, b"X\t: y")),
    # --- chunks (§7.1) ---
    "chunk size 0x2": (400, chunks(b"0x2\r\n{}\r\n" + LAST)),
    "chunk size with junk": (400, chunks(b"2 zz\r\n{}\r\n" + LAST)),
    "chunk size with plus": (400, chunks(b"+2\r\n{}\r\n" + LAST)),
    "negative chunk size": (400, chunks(b"-2\r\n{}\r\n" + LAST)),
    "chunk size with a space before": (400, chunks(b" 2\r\n{}\r\n" + LAST)),
    "chunk size with an underscore": (400, chunks(b"1_0\r\n{}\r\n" + LAST)),
    "empty chunk size": (400, chunks(b"\r\n{}\r\n" + LAST)),
    "extension without a size": (400, chunks(b";a=b\r\n{}\r\n" + LAST)),
    "chunk size overflow": (400, chunks(b"10000000000000002\r\n{}\r\n" + LAST)),
    "chunk size of 17 digits": (400, chunks(b"00000000000000002\r\n{}\r\n" + LAST)),
    "chunk size 2^63": (400, chunks(b"8000000000000000\r\n{}\r\n" + LAST)),
    "chunk over the body limit": (413, chunks(b"7fffffffffffffff\r\n{}\r\n" + LAST)),
    "chunk longer than its size": (400, chunks(b"1\r\n{}\r\n" + LAST)),
    "chunk shorter than its size": (400, chunks(b"3\r\n{}\r\n" + LAST)),
    "bare LF after a chunk size": (400, chunks(b"2\n{}\r\n" + LAST)),
    "bare LF after a chunk": (400, chunks(b"2\r\n{}\n" + LAST)),
    "bare LF after the last chunk": (400, chunks(b"2\r\n{}\r\n0\n\r\n")),
    "bare LF after the trailers": (400, chunks(b"2\r\n{}\r\n0\r\nA: b\r\n\n")),
    "bare CR in a chunk size": (400, chunks(b"2\rX\r\n{}\r\n" + LAST)),
    "NUL in an extension": (400, chunks(b"2;a=\x00\r\n{}\r\n" + LAST)),
    "bare LF in an extension": (400, chunks(b"2;a\n{}\r\n" + LAST)),
    "huge extension": (400, chunks(b"2;" + b"a" * 5000 + b"\r\n{}\r\n" + LAST)),
    "folded trailer": (400, chunks(b"0\r\nA: b\r\n c\r\n\r\n")),
    "trailer without a colon": (400, chunks(b"0\r\nA\r\n\r\n")),
    "trailers too large": (431, chunks(b"0\r\n" + b"A: %s\r\n" % (b"b" * 1000) * 70 + b"\r\n")),
    # --- the request line (§3) ---
    "HTTP/0.9": (400, b"GET /v1/models\r\n"),
    "HTTP/2.0": (505, b"GET /v1/models HTTP/2.0\r\n" + HOST + b"\r\n"),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/3.0": (505, b"GET /v1/models HTTP/3.0\r\n" + HOST + b"\r\n"),
    "lower-case version": (400, b"GET /v1/models http/1.1\r\n" + HOST + b"\r\n"),
    "version 1.10": (400, b"GET /v1/models HTTP/1.10\r\n" + HOST + b"\r\n"),
    "version 01.1": (400, b"GET /v1/models HTTP/01.1\r\n" + HOST + b"\r\n"),
    "version with a comma": (400, b"GET /v1/models HTTP/1,1\r\n" + HOST + b"\r\n"),
    "no version number": (400, b"GET /v1/models HTTP/\r\n" + HOST + b"\r\n"),
    "two spaces in the request line": (400, b"GET  /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "two spaces before the version": (400, b"GET /v1/models  HTTP/1.1\r\n" + HOST + b"\r\n"),
    "tab in the request line": (400, b"GET\t/v1/models\tHTTP/1.1\r\n" + HOST + b"\r\n"),
    "space at the end of the request line": (400, b"GET /v1/models HTTP/1.1 \r\n" + HOST + b"\r\n"),
    "space before the method": (400, b" GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "space in the target": (400, b"GET /v1/a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "NUL in the target": (400, b"GET /v1/\x00 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "eight bits in the target": (400, b"GET /v1/\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "fragment in the target": (400, b"GET /v1/models#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    "relative target": (400, b"GET v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target of another scheme": (400, b"GET ftp://parry/v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "asterisk for GET": (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "user in the target": (400, b"GET http://u@parry/v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "empty host in the target": (400, b"GET http:///v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target too long": (414, b"GET /v1/" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "request line without an end": (414, b"GET /v1/" + b"a" * 20000),
    "method with a colon": (400, b"GE:T /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "CONNECT": (501, b"CONNECT parry:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "endless method": (501, b"G" * 100 + b" /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "three empty lines before": (400, b"\r\n\r\n\r\n" + post(SIZE)),
    "bare LF before": (400, b"\n" + post(SIZE)),
    "TLS on a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # --- fields (§5) and line ends (§2.2) ---
    "bare LF after the request line": (400, post(SIZE).replace(b"1.1\r\n", b"1.1\n", 1)),
    "bare LF after a field": (400, post(SIZE).replace(b"parry\r\n", b"parry\n", 1)),
    "bare LF at the end of the head": (400, POST + HOST + LENGTH + b"\n" + BODY),
    "only bare LFs": (400, post(SIZE).replace(b"\r\n", b"\n")),
    "bare CR in a value": (400, post(SIZE, b"X: a\rb")),
    "bare CR hiding a field": (400, post(SIZE, b"X: a\rTransfer-Encoding: chunked")),
    "CR CR LF": (400, post(SIZE, b"X: a\r")),
    "NUL in a value": (400, post(SIZE, b"X: a\x00b")),
    "control byte in a value": (400, post(SIZE, b"X: a\x01b")),
    "DEL in a value": (400, post(SIZE, b"X: a\x7fb")),
    "folded field": (400, post(SIZE, b"X: a\r\n b")),
    "fold that hides a length": (400, post(b"X: a\r\n Content-Length: 2", SIZE)),
    "white space before the first field": (400, POST + b" X: y\r\n" + HOST + LENGTH + b"\r\n" + BODY),
    "field without a colon": (400, post(SIZE, b"X")),
    "empty field name": (400, post(SIZE, b": y")),
    "NUL in a name": (400, post(SIZE, b"X\x00: y")),
    "space in a name": (400, post(SIZE, b"X Y: z")),
    "slash in a name": (400, post(SIZE, b"X/Y: z")),
    "eight bits in a name": (400, post(SIZE, b"X\xe4: z")),
    "200 KiB of fields": (431, post(SIZE, b"X: " + b"y" * 200000)),
    "1000 fields": (431, post(SIZE, *[b"X: y"] * 1000)),
    # --- Host (§3.2) ---
    "no Host": (400, post(SIZE, host=b"")),
    "two Hosts": (400, post(SIZE, b"Host: other")),
    "two equal Hosts": (400, post(SIZE, b"Host: parry")),
    "two hosts in one field": (400, post(SIZE, host=b"Host: parry, other\r\n")),
    "empty Host": (400, post(SIZE, host=b"Host:\r\n")),
    "user in Host": (400, post(SIZE, host=b"Host: u@parry\r\n")),
    "path in Host": (400, post(SIZE, host=b"Host: parry/x\r\n")),
    "bad port in Host": (400, post(SIZE, host=b"Host: parry:99999\r\n")),
    "Host against the target": (400, post(SIZE, line=b"POST http://other/v1/chat/completions HTTP/1.1\r\n")),
    # --- bodies ---
    "length over the limit": (413, post(b"Content-Length: 9000000000000000000")),
    "another expectation": (417, post(SIZE, b"Expect: 200-ok")),
}

# name: (bytes, answers before that of the probe)
SERVED = {
    "plain": (post(SIZE), 1),
    "chunked": (chunks(CHUNKS), 1),
    "many small chunks": (chunks(b"".join(chunk(bytes([c])) for c in BODY) + LAST), 1),
    "upper-case chunk size": (chunks(b"1B\r\n" + BODY + b"\r\n" + LAST), 1),
    "chunk size with leading zeros": (chunks(b"000000000000001b\r\n" + BODY + b"\r\n" + LAST), 1),
    "last chunk of many zeros": (chunks(chunk(BODY) + b"0000\r\n\r\n"), 1),
    "chunk extensions": (chunks(b"1b;a=b;c=\"d;\\\"e\"\r\n" + BODY + b"\r\n0;last\r\n\r\n"), 1),
    "white space around an extension": (chunks(b"1b \t; a = b\r\n" + BODY + b"\r\n" + LAST), 1),
    "trailers": (chunks(chunk(BODY) + b"0\r\nX-Checksum: 1\r\nA:\t b \t\r\n\r\n"), 1),
    "trailers that look like framing": (chunks(chunk(BODY) + b"0\r\nContent-Length: 5\r\nHost: other\r\n\r\n"), 1),
    "Chunked in mixed case": (post(b"tRANSFER-eNCODING: cHUNKED", body=CHUNKS), 1),
    "fields in mixed case": (post(b"cONTENT-lENGTH: %d" % len(BODY), host=b"hOST: parry\r\n"), 1),
    "length with leading zeros": (post(b"Content-Length: 000000000%d" % len(BODY)), 1),
    "tabs and spaces around values": (post(b"Content-Length:\t %d \t" % len(BODY), b"X:\ty\t"), 1),
    "no white space after the colon": (post(b"Content-Length:%d" % len(BODY), host=b"Host:parry\r\n"), 1),
    "empty value": (post(SIZE, b"X:"), 1),
    "eight bits in a value": (post(SIZE, b"X: \xe4\xff"), 1),
    "colon in a value": (post(SIZE, b"X: :a: b"), 1),
    "all token bytes in a name": (post(SIZE, b"!#$%&'*+-.^_`|~09azAZ: y"), 1),
    "a field many times": (post(SIZE, *[b"X: y"] * 50), 1),
    "absolute form": (post(SIZE, line=b"POST http://parry/v1/chat/completions HTTP/1.1\r\n"), 1),
    "absolute form, its scheme in capitals": (post(SIZE, line=b"POST HTTP://PARRY:80/v1/chat/completions HTTP/1.1\r\n"), 1),
    "Host with a port": (post(SIZE, host=b"Host: parry:8420\r\n"), 1),
    "Host of IPv6": (post(SIZE, host=b"Host: [::1]:8420\r\n"), 1),
    "one empty line before": (b"\r\n" + post(SIZE), 1),
    "two empty lines before": (b"\r\n\r\n" + post(SIZE), 1),
    "version 1.9": (post(SIZE, line=POST.replace(b"1.1", b"1.9")), 1),
    "query": (post(SIZE, line=POST.replace(b" HTTP", b"?a=b&c=%20?/ HTTP")), 1),
    "expectation": (post(SIZE, b"Expect: 100-Continue"), 1),
    "unknown connection options": (post(SIZE, b"Connection: x, Keep-Alive", b"X: y"), 1),
    "upgrade that is ignored": (post(SIZE, b"Connection: upgrade", b"Upgrade: h2c"), 1),
    "three pipelined": (post(SIZE) * 3, 3),
    "pipelined, chunked and counted": (chunks(CHUNKS) + post(SIZE) + chunks(CHUNKS), 3),
    "empty line between": (post(SIZE) + b"\r\n" + post(SIZE), 2),
    "GET with a length of 0": (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", 1),
    "GET with a body": (b"GET /v1/models HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY, 1),
    "a body that looks like a request": (post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), 1),
}

CLOSES = {
    "HTTP/1.0": post(SIZE, line=POST.replace(b"1.1", b"1.0")),
    "HTTP/1.0 without Host": post(SIZE, line=POST.replace(b"1.1", b"1.0"), host=b""),
    "close": post(SIZE, b"Connection: close"),
    "Close among others": post(SIZE, b"Connection: x , CLOSE\t, y"),
    "close in a second field": post(SIZE, b"Connection: keep-alive", b"Connection: close"),
}


@pytest.fixture(scope="module")
def provider(start_once):
    return start_once.provider(otherwise=ok())


@pytest.fixture(scope="module")
def gateway(start_once, provider):
    return start_once.gateway(f"""
provider "p" {{ base_url = "{provider.url}/v1", dialect = "openai" }}
route "/v1/*" {{ to = "p", deadline = 30, chain = {{}} }}
""")


def exchange(gateway, data, piece):
    """Everything that comes back until the gateway closes, which it must."""
    with connect(gateway.address, 20) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(data), piece):
                made.sendall(data[at:at + piece])
        except ConnectionError:
            pass  # refused before the end
        got = b""
        try:
            while more := made.recv(65536):
                got += more
        except ConnectionResetError:
            pass
        return got


def answers(data):
    """The statuses of all final answers, read strictly: nothing may be left over."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        line, *lines = head.split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        if status == b"100":
            continue
        fields = {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in lines)}
        if fields.get(b"transfer-encoding") == b"chunked":
            size = 1
            while size:
                line, _, data = data.partition(b"\r\n")
                size = int(line, 16)
                assert data[size:size + 2] == b"\r\n"
                data = data[size + 2:]
        else:
            size = int(fields[b"content-length"])
            assert len(data) >= size
            data = data[size:]
        found.append((int(status), fields.get(b"connection") == b"close"))
    return found


def piece_sizes(data):
    return (len(data), 1) if len(data) < 1000 else (len(data), 1000)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(gateway, provider, name):
    expected, data = REFUSED[name]
    for piece in piece_sizes(data):
        before = len(provider.asked)
        found = answers(exchange(gateway, data + PROBE, piece))
        assert len(found) == 1, found
        status, closes = found[0]
        assert status == expected and closes
        assert len(provider.asked) == before


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_once(gateway, provider, name):
    data, count = SERVED[name]
    for piece in piece_sizes(data):
        before = len(provider.asked)
        found = answers(exchange(gateway, data + PROBE, piece))
        assert [status for status, _ in found] == [200] * (count + 1)
        assert [closes for _, closes in found] == [False] * count + [True]
        asked = provider.asked[before:]
        assert len(asked) == count
        assert not [a for a in asked if a.path == "/v1/smuggled"]
        for one in asked:
            assert one.method == "GET" or one.body in (BODY, SMUGGLED), one.body
            assert not {"transfer-encoding", "expect", "upgrade", "te", "trailer"} & set(one.headers), one.headers
            assert one.headers["host"] == provider.address


@pytest.mark.parametrize("name", CLOSES)
def test_what_closes_is_served_once(gateway, provider, name):
    data = CLOSES[name]
    for piece in piece_sizes(data):
        before = len(provider.asked)
        found = answers(exchange(gateway, data + PROBE, piece))
        assert found == [(200, True)]
        assert len(provider.asked) == before + 1


def test_a_refusal_behind_an_answer(gateway, provider):
    """Pipelined behind a good request: the good one is answered, the bad one refused, what follows is not read."""
    before = len(provider.asked)
    bad = REFUSED["length and chunked"][1]
    found = answers(exchange(gateway, post(SIZE) + bad + PROBE, 1 << 20))
    assert [status for status, _ in found] == [200, 400]
    assert len(provider.asked) == before + 1


@pytest.mark.parametrize("name", ["length and chunked", "chunk longer than its size", "bare LF after a field"])
def test_refused_however_it_is_cut(gateway, provider, name):
    """In two pieces, at every byte."""
    expected, data = REFUSED[name]
    before = len(provider.asked)
    for at in range(1, len(data)):
        with connect(gateway.address, 20) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.sendall(data[:at])
            made.sendall(data[at:] + PROBE)
            got = b""
            while more := made.recv(65536):
                got += more
            assert answers(got) == [(expected, True)], at
    assert len(provider.asked) == before


def test_enough_rows():
    assert len(REFUSED) >= 70 and len(SERVED) + len(CLOSES) >= 30
