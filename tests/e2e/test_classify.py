"""Classification that survives the wild: a table of providers' errors through the real `parry classify`.

classify_rows.jsonl has one row a line: `id`, `dialect`, `provider`, `status` or `curl`, `headers`, `body` (text; `pad`: so
many bytes stand for @PAD@) or `body_base64`, `in_stream` (the body is the data of one event, `event` its type), what it
must be taken for (`category`, `retryable`, sometimes `retry_after`), and `source`: where the facts are from. Rows with
`aside` were not looked at while the dialects were written; they are judged like all others.

Every row must say rightly whether a retry helps, 97 of 100 the category too; what differs is printed. Then every row is
broken in many ways, the same in every run: nothing may crash, and every line must be answered with one valid line."""

import base64
import json
import pathlib
import random

from harness import run_parry

ROWS = [json.loads(line) for line in (pathlib.Path(__file__).with_name("classify_rows.jsonl")).open(encoding="utf-8")]
FIELDS = {"id", "category", "origin", "retryable", "retry_after", "refresh_token", "fallback", "code", "message"}
ORIGINS = {"billing": "billing", "network": "network", "overloaded": "server", "server": "server", "unknown": "server",
           "none": None}


def body_of(row):
    if "body_base64" in row:
        return base64.b64decode(row["body_base64"])
    return row["body"].replace("@PAD@", "y" * row.get("pad", 0)).encode()


def line_of(row, body, name=None):
    headers = dict(row.get("headers", {}))
    if row.get("in_stream"):
        headers["content-type"] = "text/event-stream"
        event = b"event: " + row["event"].encode() + b"\n" if "event" in row else b""
        body = event + b"data: " + body + b"\n\n"
    line = {"id": name or row["id"], "dialect": row["dialect"], "provider": row["provider"],
            "http_status": row["status"], "headers": headers, "body_base64": base64.b64encode(body).decode()}
    if "curl" in row:
        line["curl_code"] = row["curl"]
    return line


def classify(lines):
    done = run_parry("classify", input="\n".join(map(json.dumps, lines)).encode() + b"\n", timeout=100)
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stderr[-2000:])
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["id"] for result in results] == [line["id"] for line in lines]
    return results


def test_the_table_is_what_it_claims_to_be():
    assert len(ROWS) >= 150 and len({row["id"] for row in ROWS}) == len(ROWS)
    assert {row["dialect"] for row in ROWS} >= {"openai", "azure", "anthropic", "kimi", "gemini", "generic"}
    assert all(row["source"] for row in ROWS)


def test_every_row_is_taken_for_what_it_is():
    results = classify([line_of(row, body_of(row)) for row in ROWS])
    wrong = {"category": [], "retryable": [], "retry_after": []}
    for row, result in zip(ROWS, results):
        assert set(result) == FIELDS, result
        for field, found in wrong.items():
            if field in row and result[field] != row[field]:
                found.append(f"{row['id']}: {field} {result[field]}, expected {row[field]} ({row['source']})")
    print(*wrong["category"], *wrong["retryable"], *wrong["retry_after"], sep="\n")
    assert not wrong["retryable"], "\n".join(wrong["retryable"])
    assert not wrong["retry_after"], "\n".join(wrong["retry_after"])
    assert len(wrong["category"]) <= len(ROWS) * 0.03, "\n".join(wrong["category"])


def test_billing_is_never_retried_and_origins_follow():
    for status in (200, 400, 401, 403, 404, 429, 500, 503, 529):
        rows = [row for row in ROWS if row["category"] == "billing" and not row.get("in_stream")]
        rows = [{**row, "status": status} for row in rows if row["source"] != "bare answers"]
        for row, result in zip(rows, classify([line_of(row, body_of(row)) for row in rows])):
            assert result["category"] != "billing" or not result["retryable"], (status, result)
            assert result["origin"] == ORIGINS.get(result["category"], result["origin"]), (status, result)
    # where a code says it, no status makes it anything else
    for dialect in ("openai", "azure", "generic"):
        quota = {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}
        lines = [{"id": status, "dialect": dialect, "http_status": status, "headers": {}, "body": quota}
                 for status in (200, 400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504, 529)]
        for result in classify(lines):
            assert result["category"] == "billing" and not result["retryable"], result


# --- broken rows ------------------------------------------------------------------------------------------------


def truncated(body, dice):
    return body[:dice.randrange(len(body) + 1)]


def flipped(body, dice):
    body = bytearray(body)
    for _ in range(dice.randrange(1, 6)):
        if body:
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    return bytes(body)


def in_an_array(body, _dice):
    return b"[" + body + b"]"


def deeper(body, dice):
    depth = dice.randrange(1, 80)
    return b'{"error":' * depth + body + b"}" * depth


def with_mark(body, _dice):
    return b"\xef\xbb\xbf" + body


def twice(body, _dice):
    return body + body


def with_repeated_keys(body, dice):
    at = body.find(b"{")
    keys = [b'"error":null,', b'"code":"x",', b'"message":7,', b'"error":[],', b'"status":"x",', b'"type":{},']
    return body[:at + 1] + b"".join(dice.choices(keys, k=3)) + body[at + 1:] if at >= 0 else body


def as_a_text(body, _dice):
    return json.dumps({"message": body.decode("latin-1")}).encode()


def spliced(body, dice):
    other = body_of(dice.choice(ROWS))[:4096]
    cut = dice.randrange(len(body) + 1)
    return body[:cut] + other + body[cut:]


MUTATIONS = [truncated, truncated, truncated, flipped, flipped, in_an_array, deeper, with_mark, twice,
             with_repeated_keys, as_a_text, spliced]


def test_broken_rows_are_answered_all_the_same():
    dice = random.Random(20261121)
    lines = []
    for row in ROWS:
        for number, mutation in enumerate(MUTATIONS):
            body = mutation(body_of(row)[:20000], dice).replace(b"\n\n", b"\n")
            lines.append(line_of(row, body, f"{row['id']} {number} {mutation.__name__}"))
    for line, result in zip(lines, classify(lines)):
        assert set(result) == FIELDS, (line, result)
        assert isinstance(result["retryable"], bool) and isinstance(result["message"], str), (line, result)
        assert result["retry_after"] is None or result["retry_after"] >= 0, (line, result)
        if line["http_status"] is None or line["http_status"] >= 400:
            assert result["category"] not in ("none", "unknown"), (line, result)


def test_a_byte_order_mark_or_an_array_around_it_changes_nothing():
    rows = [row for row in ROWS if row["status"] and row["status"] >= 400 and body_of(row)[:1] in (b"{", b"[")]
    plain = classify([line_of(row, body_of(row)) for row in rows])
    marked = classify([line_of(row, b"\xef\xbb\xbf" + body_of(row)) for row in rows])
    boxed = classify([line_of(row, b"[" + body_of(row) + b"]") for row in rows])
    assert plain == marked
    assert [result["category"] for result in plain] == [result["category"] for result in boxed]
