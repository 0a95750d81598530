"""The page's snippets and the examples run, against the simulator."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap

import pytest

import harness
import parry
from conftest import HERE, PACKAGE, ROOT

PAGE = (HERE.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "bindings/examples/python"


def test_snippets(sim, tmp_path, monkeypatch, capsys):
    """In order, in one program, as a reader would type them."""
    blocks = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", PAGE)
    lua = [text for language, text in blocks if language == "lua"]
    assert len(lua) == 2 and "8421" in lua[0] and "host = true" in lua[1]
    folder = "".join(lua).replace("http://127.0.0.1:8421", sim.url).replace('use "retry"', 'use "retry" { base = 0.01 }')
    harness.Folder(tmp_path / "policies", folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARRY_SHARE", str(harness.SHARE))
    names = {}
    python = [text for language, text in blocks if language == "python"]
    assert len(python) >= 9
    try:
        for text in python:
            code = compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                async def run(code=code):
                    await eval(code, names)
                asyncio.run(run())
            else:
                exec(code, names)
    finally:
        if "engine" in names:
            names["engine"].close()
    said = capsys.readouterr().out
    assert "rate_limit (429" in said and "data: [DONE]" in said and "\nada\n" in said and "# HELP" in said


@pytest.mark.parametrize("name, expected", [
    ("script.py", "call: 200 after 3 attempts\nguard: ada, from db/replica\ndecide: retry in "),
    ("service.py", "streams: [2, 1, 1, 1, 1, 1, 1, 1]\nrefused: 402 no plan\npolicies: taken over\nafter the edit: 1\n")])
def test_examples(sim, name, expected):
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": PACKAGE, "PROVIDER": f"{sim.url}/v1"})
    assert done.returncode == 0 and done.stdout.startswith(expected) and not done.stderr, done.stdout + done.stderr


def test_docstrings_have_code_that_compiles():
    for name in parry.__all__:
        thing = getattr(parry, name)
        for part in (thing, *(vars(thing).values() if isinstance(thing, type) else ())):
            lines = re.findall(r"(?m)^ *(?:>>>|\.\.\.) ?(.*)$", inspect.getdoc(part) or "" if callable(part) else "")
            if lines:
                text = textwrap.dedent("\n".join(lines))
                compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_benchmark():
    done = subprocess.run([sys.executable, HERE.parent / "bench.py", "--json", "--count", "200"], capture_output=True,
                          text=True, timeout=60, env={**os.environ, "PYTHONPATH": PACKAGE})
    assert done.returncode == 0 and '"python_decide_ns"' in done.stdout, done.stderr
