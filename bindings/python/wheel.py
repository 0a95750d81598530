#!/usr/bin/env python3
"""Builds the wheel: the package, libparry and the shipped policies, for this platform and any Python from 3.9 on.

    wheel.py --library build/release/libparry.so [--policies policies] [--out .]

A wheel is a zip file with a list of its contents, so that nothing but Python is needed, and the same input gives the same
bytes. Prints the file's name.
"""

import argparse
import base64
import hashlib
import pathlib
import sysconfig
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSION = "0.1.0"
TAG = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
METADATA = f"""Metadata-Version: 2.1
Name: parry
Version: {VERSION}
Summary: Scriptable policies for failing API calls
Requires-Python: >=3.9
Provides-Extra: httpx
Requires-Dist: httpx>=0.23; extra == "httpx"
Description-Content-Type: text/markdown

"""


def contents(library, policies):
    """Pairs of a name in the wheel and its bytes."""
    for path in sorted((HERE / "parry").glob("*")):
        if path.suffix in (".py", ".typed"):
            yield f"parry/{path.name}", path.read_bytes()
    yield "parry/_lib/libparry.so", library.read_bytes()
    for path in sorted(policies.rglob("*.lua")):
        if not path.stem.endswith("_test"):
            yield f"parry/_share/policies/{path.relative_to(policies)}", path.read_bytes()
    info = f"parry-{VERSION}.dist-info"
    yield f"{info}/METADATA", (METADATA + (HERE / "README.md").read_text(encoding="utf-8")).encode()
    yield f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: parry\nRoot-Is-Purelib: false\nTag: {TAG}\n".encode()
    yield f"{info}/LICENSE", (ROOT / "LICENSE").read_bytes()


def build(library, policies, out):
    path = out / f"parry-{VERSION}-{TAG}.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        def add(name, data):
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            wheel.writestr(entry, data)

        for name, data in contents(library, policies):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
            add(name, data)
        name = f"parry-{VERSION}.dist-info/RECORD"
        add(name, ("".join(record) + f"{name},,\n").encode())
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--library", type=pathlib.Path, required=True, help="libparry.so as it was built")
    parser.add_argument("--policies", type=pathlib.Path, default=ROOT / "policies", help="the shipped ones")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), help="folder for the wheel")
    asked = parser.parse_args()
    print(build(asked.library, asked.policies, asked.out))


if __name__ == "__main__":
    main()
