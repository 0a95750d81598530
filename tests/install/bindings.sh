#!/usr/bin/env bash
# The tests of the bindings, and the snippets of the pages for hosts in C, C++ and Lua, against an installed parry.
# Usage: bindings.sh PREFIX cpp|lua|pages|python
#        bindings.sh PREFIX node BUILD_DIR
set -euo pipefail

prefix=$(cd "${1:?usage: bindings.sh PREFIX cpp|lua|pages|python|node}" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bindings=$here/../../bindings
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/install/host_environment.sh
. "$here/host_environment.sh"

case ${2:?usage: bindings.sh PREFIX cpp|lua|pages|python|node} in
cpp)
  # Whatever warnings a user has turned on, the header gives none; nor does it need run-time types.
  g++ -std=c++17 -fsyntax-only -fno-rtti -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast "${strict[@]}" \
    "${cflags[@]}" "$bindings/cpp/test.cpp"
  clang++ -std=c++20 "${strict[@]}" "${cflags[@]}" "$bindings/cpp/test.cpp" -o "$work/test" "${shared[@]}" -pthread
  "$work/test"
  ;;
lua)
  lua5.4 "$bindings/lua_module/test.lua"
  # The interpreter's Lua is the only one, see bindings/lua_module/README.md.
  LD_DEBUG=bindings lua5.4 -e 'require "parry"' 2>"$work/bindings"
  grep -q "libparry.so.* to .*lua5.4.*\`lua_newstate'" "$work/bindings" || {
    echo "lua: libparry does not use the interpreter's Lua:" >&2
    grep "\`lua_newstate'" "$work/bindings" >&2
    exit 1
  }
  ;;
python)
  PARRY_LIBRARY=$(find "$libdir" -name 'libparry.so.*' | sort | head -n 1)
  export PARRY_LIBRARY PARRY_BIN=$prefix/bin/parry
  cd "$bindings/python"
  /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests
  ;;
node) # all of them run with the package's own libparry, see tests/CMakeLists.txt
  PARRY_NODE_TESTS='test/engine.test.js test/calls.test.js' \
    "$bindings/node/test/run.sh" "${3:?usage: bindings.sh PREFIX node BUILD_DIR}" "$prefix"
  ;;
pages)
  export PATH=$prefix/bin:$PATH
  "$here/with_sim.sh" "$prefix/bin/parry" "$here/snippets.py" \
    "$bindings/README.md" "$bindings/examples/README.md" "$bindings/C.md" "$bindings/cpp/README.md" "$bindings/lua_module/README.md"
  ;;
esac
