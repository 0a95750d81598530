"""`parry sse`: recorded streams as the gateway sees them.

The corpus, sse_corpus.jsonl, has its streams with the events, the verdict and the failure that are expected of them;
unit/test_sse_corpus.c reads the same file and cuts each stream at every byte.
"""

import base64
import json
import pathlib
import random

import pytest

from harness import run_parry

CORPUS = [json.loads(line) for line in (pathlib.Path(__file__).parent / "sse_corpus.jsonl").read_text().splitlines()]


def stream_of(row):
    return base64.b64decode(row["stream_b64"]) if "stream_b64" in row else row["stream"].encode()


def record(row, chunks):
    return {"id": row["id"], "dialect": row["dialect"], "end": row.get("end", "eof"),
            "chunks_b64": [base64.b64encode(chunk).decode() for chunk in chunks]}


def judge(records, *arguments, code=0):
    done = run_parry("sse", *arguments, input="\n".join(json.dumps(r) for r in records).encode())
    assert done.returncode == code, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(records)
    return results


def assert_as_expected(row, result):
    assert [[e["event"], e["data"]] for e in result["events"]] == row["events"], row["id"]
    assert (result["verdict"], result["safe_to_retry"]) == (row["verdict"], row["safe_to_retry"]), row["id"]
    if row["verdict"] == "clean_end":
        assert result["error"] is None
    else:
        error = result["error"]
        assert (error["category"], error["code"]) == (row["category"], row["code"]), row["id"]
        assert list(error) == ["category", "origin", "retryable", "retry_after", "refresh_token", "fallback", "code",
                               "message"]


def test_the_corpus_is_one():
    assert len(CORPUS) >= 90 and len({row["id"] for row in CORPUS}) == len(CORPUS)
    assert {row["verdict"] for row in CORPUS} == {"clean_end", "error_before_first_token", "error_mid_stream",
                                                  "truncated"}


def test_streams_are_seen_as_expected_however_they_are_cut():
    rng = random.Random(4)
    rows, records = [], []
    for row in CORPUS:
        whole = stream_of(row)
        cuts = [[], range(1, len(whole))]
        cuts += [sorted(rng.sample(range(1, len(whole)), min(len(whole) - 1, rng.randint(1, 6)))) if len(whole) > 1
                 else [] for _ in range(4)]
        for cut in cuts:
            edges = [0, *cut, len(whole)]
            rows.append(row)
            records.append(record(row, [whole[a:b] for a, b in zip(edges, edges[1:])]))
    for row, result in zip(rows, judge(records)):
        assert result["id"] == row["id"]
        assert_as_expected(row, result)


def test_raw_bytes_are_one_stream(tmp_path):
    for row in CORPUS[::7]:
        file = tmp_path / "stream"
        file.write_bytes(stream_of(row))
        arguments = ["sse", "--dialect", row["dialect"], "--end", row.get("end", "eof")]
        from_file, from_stdin = run_parry(*arguments, file), run_parry(*arguments, input=stream_of(row))
        assert from_file.returncode == 0 and from_file.stdout == from_stdin.stdout
        result = json.loads(from_file.stdout)
        assert result["id"] is None
        assert_as_expected(row, result)


BAD_LINES = [
    ("{", "not JSON"), ("[]", "object"), ('{"id":1}', "chunks_b64 is not there"),
    ('{"chunks_b64":"x"}', "not a list"), ('{"chunks_b64":["?"]}', "base64"), ('{"chunks_b64":[1]}', "base64"),
    ('{"chunks_b64":["QQ==QQ=="]}', "base64"), ('{"chunks_b64":["QQ==    "]}', "base64"), ('{"chunks_b64":["===="]}', "base64"),
    ('{"chunks_b64":[],"end":"later"}', "eof, reset, timeout"), ('{"chunks_b64":[],"dialect":3}', "not a text"),
]


@pytest.mark.parametrize("line, word", BAD_LINES, ids=[line for line, _ in BAD_LINES])
def test_a_bad_line_is_named_and_the_rest_goes_on(line, word):
    good = json.dumps(record(CORPUS[0], [stream_of(CORPUS[0])]))
    done = run_parry("sse", input=f"\n{line}\n{good}\n".encode())
    assert done.returncode == 1
    bad, result = [json.loads(text) for text in done.stdout.splitlines()]
    assert bad["id"] is None and bad["error"].startswith("line 2: ") and word.split()[0] in bad["error"], bad
    assert_as_expected(CORPUS[0], result)


def test_what_is_not_known_is_generic_and_told_once():
    rows = [{"id": n, "dialect": "opanai", "chunks_b64": [base64.b64encode(b"data: x\n\n").decode()]} for n in (1, 2)]
    done = run_parry("sse", input="\n".join(map(json.dumps, rows)).encode())
    assert done.returncode == 0 and done.stderr.count("opanai") == 1 and "'openai'" in done.stderr
    assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == ["clean_end"] * 2


def test_long_events_and_long_lines_are_bounded():
    long = b'data: {"choices":[{"delta":{"content":"' + b"x" * 400_000 + b'"}}]}\n\ndata: [DONE]\n\n'
    result = judge([{"id": 1, "dialect": "openai", "chunks_b64": [base64.b64encode(long).decode()]}])[0]
    assert result["verdict"] == "clean_end" and len(result["events"]) == 2
    assert result["events"][0]["cut"] is True and 200_000 < len(result["events"][0]["data"]) < 300_000
    done = run_parry("sse", input=b'{"id":1,"x":"' + b"x" * (17 << 20) + b'"}\n{"chunks_b64":[]}\n')
    assert done.returncode == 1
    assert [json.loads(line).get("error") for line in done.stdout.splitlines()][0] == "line 1: longer than 16 MiB"
    done = run_parry("sse", "-d", "openai", input=b"data: " + b"x" * (17 << 20))
    assert done.returncode == 1 and "16 MiB" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("arguments", [["--end", "never", "-d", "openai"], ["--end", "eof"], ["a", "b"]])
def test_wrong_options_are_refused(arguments):
    assert run_parry("sse", *arguments, input=b"").returncode == 2


def test_a_file_that_is_not_there_is_told():
    done = run_parry("sse", "/nowhere/at/all")
    assert done.returncode == 1 and "/nowhere/at/all" in done.stderr
