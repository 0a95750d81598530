"""The guide says what the policies' files say: each parameter in its policy's table, with the default of the file."""

import re

import pytest

from harness import SHARE

POLICIES = sorted(p.stem for p in SHARE.glob("*.lua") if p.stem != "init" and not p.stem.endswith("_test"))
GUIDE = (SHARE / "README.md").read_text()


def braces(text, start):
    """What stands between the brace at `start` and its partner; texts and comments do not count."""
    depth, i = 0, start
    while True:
        skipped = re.compile(r'"(?:\\.|[^"\\])*"|--[^\n]*').match(text, i)
        if skipped:
            i = skipped.end()
            continue
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        i += 1
        if depth == 0:
            return text[start + 1:i - 1]


def pieces(text):
    """Split at the commas that are in no braces and no text."""
    parts, depth, last = [], 0, 0
    for token in re.finditer(r'"(?:\\.|[^"\\])*"|--[^\n]*|[{},]', text):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if token.group() == "," and depth == 0:
            parts.append(text[last:token.start()])
            last = token.end()
    return [part.strip() for part in [*parts, text[last:]] if part.strip()]


def plain(value):
    """A default as it is compared: numbers as numbers, lists as lists of words."""
    value = value.strip().strip("`")
    if value in ("none", "required", "true", "false"):
        return value
    try:
        return float(value)
    except ValueError:
        return [word.strip().strip('"`') for word in value.strip("{} \n").split(",") if word.strip()]


def declared(name):
    """{ parameter: default } of a policy's file."""
    text = (SHARE / f"{name}.lua").read_text()
    days = {"DAY": "86400"}
    found = {}
    start = re.search(r"\n  params = \{", text).end() - 1
    for match in re.finditer(r"([a-z_]+)\s*=\s*param \{", braces(text, start)):
        body = braces(text, text.index(match.group(), start) + len(match.group()) - 1)
        parts = pieces(body)
        own = [part for part in parts if not re.match(r"[a-z_]+\s*=", part)]
        assert len(own) <= 1, body
        if own:
            found[match.group(1)] = plain(days.get(own[0], own[0]))
        else:
            found[match.group(1)] = "required" if "required = true" in parts else "none"
    return found


def told(name):
    """{ parameter: default as the guide writes it } of a policy's section."""
    section = re.search(rf"\n### {name}\n(.*?)(?=\n##)", GUIDE, re.S)
    assert section, f"README.md has no section {name}"
    table = re.search(r"\n\| parameter \| default \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", section.group(1))
    assert table, f"README.md: {name} has no table of parameters"
    found = {}
    for row in table.group(1).splitlines():
        names, defaults, text = (cell.strip() for cell in row.strip("|").split(" | ", 2))
        names = re.findall(r"`([a-z_]+)`", names)
        values = defaults.split(", ") if len(names) > 1 else [defaults]
        if len(values) == 1:
            values *= len(names)
        assert len(values) == len(names), row
        found.update(zip(names, values))
        for more, value in re.findall(r"`([a-z_]+)` \(([\d.]+) s\)", text):  # said beside the one that it belongs to
            found[more] = value
    return found


# Defaults that the guide tells in words, and what stands in the file.
WORDS = {
    ("circuit_breaker", "failures"): ("5", "none"),
    ("health", "targets"): ("what the routes name", []),
    ("rate_limit", "burst"): ("a second's", "none"),
    ("retry", "quota_costs"): ("see right", []),
    ("chaos", "until_time"): ("none", [""]),
    ("chaos", "armed"): ("none", []),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_table_of_parameters_is_that_of_the_file(name):
    file, guide = declared(name), told(name)
    assert sorted(guide) == sorted(file), name
    for parameter, default in file.items():
        said = guide[parameter]
        if (name, parameter) in WORDS:
            assert (said, default) == WORDS[name, parameter], f"{name}.{parameter}"
        elif said != "see the file":
            assert plain(said) == default, f"{name}.{parameter}: the file has {default}, README.md says {said}"


def test_every_table_stands_alone_and_says_a_thing_once():
    """Parts that were put together by a merge have stood in other sections, and rows twice."""
    lines = GUIDE.splitlines()
    for before, line in zip(lines, lines[1:]):
        assert not (line.startswith("|") and before and not before.startswith("|")), f"no blank line before: {line}"
        assert not (before.startswith("|") and line and not line.startswith("|")), f"no blank line after: {before}"
    block = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            first = line.split(" | ")[0]
            if re.fullmatch(r"\| `[^`]+`", first):
                assert first not in block, f"twice in one table: {first}"
                block.append(first)
        else:
            block = []
