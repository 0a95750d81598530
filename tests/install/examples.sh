#!/usr/bin/env bash
# Builds and runs every example against an installed parry: C with gcc and clang, with libparry.so and libparry.a; C++ with
# both compilers and standards; Lua in the stock interpreter; and C once under valgrind. A new file in
# bindings/examples/FOLDER is one more example. Each gets the base URL of a simulator as its argument and exits 0 on what it
# expects.
# Usage: examples.sh PREFIX c|static|valgrind|cpp|lua
set -euo pipefail

prefix=$(cd "${1:?usage: examples.sh PREFIX LANGUAGE}" && pwd)
kind=${2:?usage: examples.sh PREFIX LANGUAGE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/install/host_environment.sh
. "$here/host_environment.sh"
ran=0

# run NAME COMMAND...
run() {
  local name=$1
  shift
  echo "--- $name"
  timeout 60 "$here/with_sim.sh" "$prefix/bin/parry" "$@" || { echo "examples: $name: exit $?" >&2 && exit 1; }
  ran=$((ran + 1))
}

case $kind in
c | static | valgrind) pattern='*.c' ;;
cpp) pattern='*.cpp' ;;
lua) pattern='*.lua' ;;
esac
c=(-std=c11 -D_GNU_SOURCE "${strict[@]}" "${cflags[@]}")
for source in "$here/../../bindings/examples"/*/$pattern; do
  name=$(basename "$(dirname "$source")")/$(basename "$source")
  case $kind in
  c)
    for compiler in gcc clang; do
      "$compiler" "${c[@]}" "$source" -o "$work/host" "${shared[@]}"
      run "$name, $compiler" "$work/host"
    done
    ;;
  static)
    gcc "${c[@]}" "$source" -o "$work/host" "${static[@]}"
    # A static host knows only the prefix it was configured for.
    PARRY_SHARE=$prefix/share/parry/policies run "$name, static" "$work/host"
    ;;
  valgrind)
    gcc "${c[@]}" "$source" -o "$work/host" "${shared[@]}"
    run "$name, valgrind" valgrind -q --error-exitcode=99 --leak-check=full \
      --errors-for-leak-kinds=definite,indirect,possible "$work/host"
    ;;
  cpp)
    for compiler in "g++ -std=c++17" "clang++ -std=c++20"; do
      $compiler "${strict[@]}" "${cflags[@]}" "$source" -o "$work/host" "${shared[@]}"
      run "$name, $compiler" "$work/host"
    done
    ;;
  lua) run "$name" lua5.4 "$source" ;;
  esac
done
[ $ran != 0 ] || { echo "examples: none found" >&2 && exit 1; }
echo "$ran passed"
