#!/usr/bin/env bash
# Installs a finished build into an empty prefix, which the other tests use the way hosts do, and looks at what is there.
# Usage: prefix.sh BUILD_DIR PREFIX
set -euo pipefail

build=$(cd "${1:?usage: prefix.sh BUILD_DIR PREFIX}" && pwd)
prefix=${2:?usage: prefix.sh BUILD_DIR PREFIX}
unset PARRY_SHARE DESTDIR

fail() {
  echo "install: $*" >&2
  exit 1
}

rm -rf "$prefix"
log=$(cmake --install "$build" --prefix "$prefix") || fail "cmake --install: $log"

# What is not in parry.h (and parry.hpp, made of it) does not exist: no other header may be installed.
headers=$(cd "$prefix" && find . -name '*.h' -o -name '*.hpp' | sort | xargs)
[ "$headers" = "./include/parry.h ./include/parry.hpp" ] || fail "installed headers: $headers"
[ -x "$prefix/bin/parry" ] || fail "bin/parry was not installed"
[ -f "$prefix/share/parry/policies/init.lua" ] || fail "the shipped policies were not installed"
grep -q '^function store.get(key) end' "$prefix/share/parry/meta/parry.lua" || fail "the annotations were not installed"
[ -n "$(find "$prefix" -path '*/lua/5.4/parry.so')" ] || fail "the Lua module was not installed"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name parry.pc)")
export PKG_CONFIG_PATH
version=$(pkg-config --modversion parry)
"$prefix/bin/parry" version | grep -qF "parry $version" || fail "'parry version' does not say $version"
[[ " $(pkg-config --libs parry) " != *" -lcurl "* ]] || fail "a dynamic link must not name libparry's own dependencies"

# The program finds what came with it, wherever the tree was moved.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cd "$empty"
"$prefix/bin/parry" classify <<<'{"id":1,"dialect":"kimi","http_status":200,"body":"{\"errcode\":-2002}"}' |
  grep -q '"auth"' || fail "parry does not find the policies installed with it"

# The header alone, in every language and compiler it is for.
read -ra cflags <<<"$(pkg-config --cflags parry)"
strict=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only)
for compiler in gcc clang; do
  for standard in c11 c17; do
    echo '#include <parry.h>' | "$compiler" -x c -std=$standard "${strict[@]}" "${cflags[@]}" - ||
      fail "parry.h: $compiler -std=$standard"
  done
  for standard in c++17 c++20; do
    for header in parry.h parry.hpp; do
      echo "#include <$header>" | "$compiler" -x c++ -std=$standard "${strict[@]}" "${cflags[@]}" - ||
        fail "$header: $compiler -std=$standard"
    done
  done
done
echo "install: ok"
