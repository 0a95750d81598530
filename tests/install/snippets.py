#!/usr/bin/python3
"""Tries the snippets of pages in Markdown. A line `<!-- NAME -->` above a fenced block names a file that it is; all of a
page's are written to one folder, beside links to the folders that are beside the page. Blocks of `sh` are run there, in their order, and blocks of `lua` in the stock
interpreter; C and C++ is what `sh` blocks compile. What runs gets $SIM, the base URL of a simulator.
Usage: snippets.py PAGE... BASE_URL"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

FENCE = re.compile(r"(?:^<!-- (\S+) -->\n+)?^```(\w+)\n(.*?)^```$", re.M | re.S)


def run(page, command, folder, text=None):
    done = subprocess.run(command, cwd=folder, input=text, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"{page}: exit {done.returncode} of\n{text or ' '.join(command)}")


def try_page(page):
    blocks = FENCE.findall(pathlib.Path(page).read_text())
    if not blocks:
        sys.exit(f"{page}: no snippet found")
    with tempfile.TemporaryDirectory() as folder:
        for beside in pathlib.Path(page).resolve().parent.iterdir():
            if beside.is_dir():
                pathlib.Path(folder, beside.name).symlink_to(beside)
        for name, language, text in blocks:
            if name:
                file = pathlib.Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
            elif language not in ("sh", "lua"):
                sys.exit(f"{page}: nobody tries this block; give it a name and compile it\n{text}")
        for name, language, text in blocks:
            if language == "sh":
                run(page, ["bash", "-euo", "pipefail", "-s"], folder, text)
            elif language == "lua" and not name:
                run(page, ["lua5.4", "-", os.environ["SIM"]], folder, text)
    return len(blocks)


os.environ["SIM"] = sys.argv[-1]
print(sum(map(try_page, sys.argv[1:-1])), "passed")
