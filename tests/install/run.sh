#!/usr/bin/env bash
# Installs a finished build into an empty prefix and uses it the way a host application does: only
# parry.h, pkg-config and the libraries, first linked dynamically, then statically.
# Usage: run.sh BUILD_DIR
set -euo pipefail

build=$(cd "${1:?usage: run.sh BUILD_DIR}" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap '[ -z "${sim:-}" ] || kill "$sim"; rm -rf "$work"' EXIT
prefix=$work/prefix
: "${CC:=cc}"

fail() {
  echo "install: $*" >&2
  exit 1
}

[ -f "$here/host.c" ] || fail "tests/install/host.c is missing"
cmake --install "$build" --prefix "$prefix" >"$work/install.log" || fail "cmake --install: $(cat "$work/install.log")"

# What is not in parry.h (and parry.hpp, made of it) does not exist: no other header may be installed.
headers=$(cd "$prefix" && find . -name '*.h' -o -name '*.hpp' | sort | xargs)
[ "$headers" = "./include/parry.h ./include/parry.hpp" ] || fail "installed headers: $headers"
[ -x "$prefix/bin/parry" ] || fail "bin/parry was not installed"
[ -f "$prefix/share/parry/policies/init.lua" ] || fail "the shipped policies were not installed"

grep -q '^function store.get(key) end' "$prefix/share/parry/meta/parry.lua" || fail "the annotations were not installed"

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name parry.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir parry)
version=$(pkg-config --modversion parry)
"$prefix/bin/parry" version | grep -qF "parry $version" || fail "'parry version' does not say $version"

# The program finds what came with it, wherever the tree was moved.
mkdir "$work/empty"
(cd "$work/empty" && env -u PARRY_SHARE "$prefix/bin/parry" classify >"$work/classified" \
  <<<'{"id":1,"dialect":"kimi","http_status":200,"body":"{\"errcode\":-2002}"}') && grep -q '"auth"' "$work/classified" ||
  fail "parry does not find the policies installed with it"

flags=(-std=c11 -Wall -Wextra -Wpedantic -Werror)
read -ra cflags <<<"$(pkg-config --cflags parry)"
read -ra shared <<<"$(pkg-config --libs parry)"
# Not `pkg-config --static`: libparry.a itself is static here, the packages it needs stay shared.
read -ra needs <<<"$(pkg-config --print-requires-private parry | paste -sd' ')"
read -ra static <<<"$(pkg-config --libs "${needs[@]}") -pthread -lm"
[[ " ${shared[*]} " != *" -lcurl "* ]] || fail "a dynamic link must not name libparry's own dependencies"

# Runs a host with the shipped policies and the installed simulator, whose faults start anew, as their only provider.
run_host() {
  : >"$work/sim.log"
  "$prefix/bin/parry" sim --listen 127.0.0.1:0 2>"$work/sim.log" &
  sim=$!
  local address=''
  for _ in $(seq 200); do
    address=$(sed -n 's|.*ready on \(http://[^ ]*\).*|\1|p' "$work/sim.log")
    [ -z "$address" ] || break
    sleep 0.05
  done
  [ -n "$address" ] || fail "parry sim did not start: $(cat "$work/sim.log")"
  rm -rf "$work/policies"
  cp -r "$prefix/share/parry/policies" "$work/policies"
  find "$work/policies" -name '*_test.lua' -delete # a host would run all of them: seconds, and nothing of its own
  cat >"$work/policies/init.lua" <<LUA
provider "sim" { base_url = "$address/v1", dialect = "openai" }
route "/v1/*" { to = "sim", chain = { use "circuit_breaker", use "retry" { base = 0.1 }, use "fallback_model" } }
LUA
  timeout 60 "$1" "$work/policies" || fail "$2: exit $?"
  kill "$sim"
  wait "$sim" || fail "parry sim: exit $?"
  sim=''
}

echo "compiling host.c against $prefix"
"$CC" "${flags[@]}" "${cflags[@]}" "$here/host.c" -o "$work/host" "${shared[@]}"
LD_LIBRARY_PATH=$libdir run_host "$work/host" "host, linked with libparry.so"

"$CC" "${flags[@]}" "${cflags[@]}" "$here/host.c" -o "$work/host-static" "$libdir/libparry.a" "${static[@]}"
run_host "$work/host-static" "host, linked with libparry.a"

# C++ hosts include the same header.
echo '#include <parry.h>' | clang -x c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only "${cflags[@]}" - ||
  fail "parry.h is not valid C++"
echo "install: ok"
