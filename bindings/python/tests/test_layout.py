"""The structs of _ffi.py are those of parry.h, as the C compiler lays them out; its constants and words, too."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import parry
from conftest import ROOT
from parry import _errors, _ffi

HEADER = pathlib.Path(os.environ.get("PARRY_INCLUDE") or ROOT / "core/include") / "parry.h"


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_structs(tmp_path):
    wanted = []
    for name, struct in _ffi.STRUCTS.items():
        wanted.append((f"sizeof(struct {name})", ctypes.sizeof(struct)))
        for field, *_ in struct._fields_:
            place = getattr(struct, field)
            wanted.append((f"offsetof(struct {name}, {field})", place.offset))
            wanted.append((f"sizeof(((struct {name} *)0)->{field})", place.size))
    wanted += [("sizeof(parry_call_id)", ctypes.sizeof(_ffi.Id)), ("sizeof(parry_request_id)", ctypes.sizeof(_ffi.Id)),
               ("PARRY_PAUSE", _ffi.PAUSE), ("PARRY_ANY_THREAD", _ffi.ANY_THREAD)]
    wanted += [(f"PARRY_{name}", getattr(_ffi, name)) for name in
               "OK EINVAL ENOMEM EPOLICY ENOENT EREENTRANT PENDING ESYSTEM BUSY EFORKED EFREED".split()]
    wanted += [(f"PARRY_{action.name}", action.value) for action in parry.Action]
    wanted += [(f"PARRY_LOG_{name.upper()}", value) for name, value in
               {"debug": 0, "info": 1, "warn": 2, "error": 3}.items()]
    lines = "\n".join(f'_Static_assert((long)({said}) == {value}, "{said.replace(chr(34), "")}");' for said, value in wanted)
    source = tmp_path / "layout.c"
    source.write_text(f"#include <stddef.h>\n#include <parry.h>\n{lines}\nint main(void) {{ return 0; }}\n")
    done = subprocess.run(["cc", "-std=c11", "-fsyntax-only", "-I", HEADER.parent, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(wanted) > 130


def test_no_struct_function_or_member_is_forgotten():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    structs = dict(re.findall(r"(?ms)^struct (parry_\w+) \{\n(.*?)^\};", text))
    assert set(structs) == set(_ffi.STRUCTS)
    for name, body in structs.items():
        members = re.findall(r"(?:\(\*(\w+)\)\(\);|[\s*](\w+)(?:\[\w+\])?[,;])", re.sub(r"\)\([^()]*\);", ")();", body))
        found = {a or b for a, b in members}
        assert found == {field for field, *_ in _ffi.STRUCTS[name]._fields_}, name
    assert set(re.findall(r"PARRY_API[^(]*?(parry_\w+)\(", text)) == set(_ffi._FUNCTIONS)


def test_every_category_has_its_class():
    text = (ROOT / "core/engine/failure.h").read_text()
    words = re.findall(r'X\(PRY_\w+, "(\w+)", PRY_ORIGIN_\w+, (?:true|false)', text)
    assert len(words) == 16 and tuple(words) == parry.CATEGORIES
    assert all(issubclass(kind, parry.CallError) and kind.__doc__ for kind in _errors.BY_CATEGORY.values())
    assert all(getattr(parry, kind.__name__) is kind for kind in _errors.BY_CATEGORY.values())


def test_all_that_is_public_is_documented():
    for name in parry.__all__:
        thing = getattr(parry, name)
        if callable(thing):
            assert thing.__doc__, name
    for name, method in vars(parry.Engine).items():
        if callable(method) and not name.startswith("_"):
            assert method.__doc__ and len(method.__doc__) > 15, name
