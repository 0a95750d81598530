"""What the READMEs say is there: links, policies and lines to copy, commands, modules, tests. (test_guide.py: parameters.)

A guide that grew by many hands once had sections and rows twice, and lines that no parry took; readers found out, not the
tests.
"""

import pathlib
import re

import pytest

from harness import Folder, run_parry

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [page for folder in ("", "policies", "core", "bindings", "bindings/*", "tests", "tests/oom")
         for page in sorted(ROOT.glob(f"{folder}/*.md".lstrip("/")))]
GUIDE = (ROOT / "policies/README.md").read_text(encoding="utf-8")
POLICIES = sorted(path.stem for path in (ROOT / "policies").glob("*.lua")
                  if path.stem != "init" and not path.stem.endswith("_test"))


def anchors(page):
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in re.findall(r"(?m)^#+ (.*)$", text)}


def section(name):
    found = re.search(rf"(?ms)^### {name}\n(.*?)(?=^##|\Z)", GUIDE)
    assert found, f"policies/README.md has no section {name}"
    return found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_said_twice(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
    rows = [line for line in re.sub(r"(?ms)^```.*?^```", "", text).split("\n") if len(line) > 40]
    assert not {row for row in rows if rows.count(row) > 1}
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        first = re.findall(r"(?m)^\| ([^|]*`[^|]*) \|", table)
        assert not {row for row in first if first.count(row) > 1}


@pytest.mark.parametrize("name", POLICIES)
def test_a_section_is_where_one_looks_and_has_one_shape(name):
    assert f"| [{name}](#{name}) | " in GUIDE
    assert GUIDE.count(f"\n### {name}\n") == 1
    text = section(name)
    table = text.index("| parameter | default | |")
    assert "    use " + f'"{name}"' in text[:table] and "Traps:" in text[table:]


@pytest.mark.parametrize("name", POLICIES)
def test_every_documented_line_is_taken(name, tmp_path):
    lines = re.sub(r"(?m)^    ", "", "\n".join(re.findall(r"(?m)^    .*$", section(name))))
    uses = re.split(r"(?m)^(?=use )", lines)[1:]
    assert uses, f"{name} has no line to copy"
    folder = Folder(tmp_path / "policies", "")
    for number, use in enumerate(uses):
        use = re.sub(r"[ \t]*--[^\n]*", "", use).strip()
        folder.write("init.lua", f"""
sink "ops" {{ webhook = secret "HOOK" }}
clients {{ file = "clients.json" }}
for _, name in ipairs {{ "p", "openai", "azure", "kimi", "moonshot", "token360" }} do
  provider(name) {{ base_url = "http://127.0.0.1:9/v1", dialect = "openai", auth = bearer(secret "KEY") }}
end
route "/v1/*" {{ to = "p", chain = {{ {use} }} }}
""")
        folder.write("clients.json", '{ "clients": [] }')
        checked = run_parry("check", folder.path, env={"KEY": "k" * 16, "HOOK": "http://127.0.0.1:9/"})
        assert checked.returncode == 0, (number, use, checked.stderr + checked.stdout)


def test_every_command_is_named():
    shown = run_parry("--help").stdout
    commands = set(re.findall(r"(?m)^  ([a-z]+)  ", shown)) - {"help"}
    assert {"serve", "errors", "alert"} <= commands
    for page in ("README.md", "policies/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        text = text[text.index("\nCommands: " if page == "README.md" else "\n## Commands"):]
        words = set(re.findall(r"`(?:parry )?([a-z]+)", text))
        assert commands - {"version", "demo"} <= words, page


def test_the_map_of_the_core_names_every_module():
    text = (ROOT / "core/README.md").read_text(encoding="utf-8")
    text = text[text.index("## Folders"):text.index("## The way of a call")]
    named = re.findall(r"`([\w.*]+)`", text)
    for folder in ("engine", "service"):
        for header in sorted((ROOT / "core" / folder).glob("*.h")):
            module = header.stem
            assert module.endswith("_internal") or any(
                module == name or name.endswith("*") and module.startswith(name[:-1]) for name in named), module


def test_every_test_that_is_named_exists():
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    for row in range(1, 26):
        if row not in (5, 17, 18, 19, 24):
            assert re.search(rf"(?m)^\| {row} \|", text), f"row {row} of the mission"
    for number in range(1, 26):
        assert re.search(rf"(?m)^\| #{number} ", text), f"complaint {number}"
    for line in text.split("\n"):
        files = []
        for name, words in re.findall(r"`([\w./*]+)`|(?<= )\"(.+?)\"(?=[ ,])", line) if line.startswith("|") else ():
            if re.search(r"\.(c|cpp|js|py|lua|sh)$", name):
                files = sorted((ROOT / "tests").glob(name)) or sorted(ROOT.glob(name))
                assert files, name
            elif files and (words or name.startswith("test_")):
                assert any((words or name) in path.read_text(encoding="utf-8") for path in files), (name, words)


def test_the_examples_of_a_policy_and_its_test_work(tmp_path):
    text = (ROOT / "policies/WRITING.md").read_text(encoding="utf-8")
    blocks = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", text)]
    policy = next(block for block in blocks if "return policy" in block)
    tests = next(block for block in blocks if 'test("' in block)
    folder = Folder(tmp_path / "policies", """
provider "p" { base_url = "http://127.0.0.1:9/v1", dialect = "openai" }
route "/v1/*" { to = "p", chain = { use "tenant" { slots = 20 } } }
""")
    folder.write("tenant.lua", policy)
    folder.write("tenant_test.lua", tests)
    done = run_parry("check", folder.path)
    assert done.returncode == 0, done.stderr + done.stdout
    done = run_parry("test", folder.path)
    assert done.returncode == 0 and "1/1 tests" in done.stdout, done.stderr + done.stdout


def test_the_example_that_asks_the_application_works(tmp_path):
    text = (ROOT / "policies/WRITING.md").read_text(encoding="utf-8").split("## Inside a host application")[1]
    blocks = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", text)]
    folder = Folder(tmp_path / "policies", """
provider "p" { base_url = "http://127.0.0.1:9/v1", dialect = "openai" }
route "/v1/*" { to = "p", chain = { use "tiers" } }
""")
    folder.write("tiers.lua", next(block for block in blocks if "return policy" in block))
    folder.write("tiers_test.lua", next(block for block in blocks if 'test("' in block))
    done = run_parry("test", folder.path)
    assert done.returncode == 0 and "2/2 tests" in done.stdout, done.stderr + done.stdout


def test_the_first_edit_is_refused_where_the_guide_says(tmp_path):
    """The guide begins with a mistake in the first route's retry; its line is that of the shipped init.lua."""
    said = re.search(r"(?m)^    (init\.lua:\d+: retry: max_attempts must be 1\.\.16, got 40)$", GUIDE)[1]
    shipped = (ROOT / "policies/init.lua").read_text(encoding="utf-8")
    folder = Folder(tmp_path / "policies", shipped.replace("max_attempts = 4 }", "max_attempts = 40 }", 1))
    checked = run_parry("check", folder.path)
    assert checked.returncode == 1 and said in checked.stdout + checked.stderr, checked
