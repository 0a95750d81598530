#!/usr/bin/env bash
# A project that uses find_package(parry) builds and runs against an installed tree that was moved after its installation;
# another minor version is refused; an edited policy folder outlives the next installation.
# Usage: consumer.sh BUILD_DIR
set -euo pipefail

build=$(cd "${1:?usage: consumer.sh BUILD_DIR}" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PARRY_SHARE DESTDIR

fail() {
  echo "consumer: $*" >&2
  exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "cmake --install: $(cat "$work/log")"
grep -q "^ExecStart=$work/first/bin/parry serve --policies $work/first/etc/parry/policies " \
  "$work/first/lib/systemd/system/parry.service" || fail "the unit does not name the prefix of its installation"
echo "-- mine" >>"$work/first/etc/parry/policies/init.lua"
cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "cmake --install, again: $(cat "$work/log")"
grep -qx -- "-- mine" "$work/first/etc/parry/policies/init.lua" || fail "an installation undid an edited policy"
mv "$work/first" "$work/moved"
grep -rlI "$work/first" "$work/moved" | grep -v '/systemd/' >"$work/names" && fail "these name their old place: $(cat "$work/names")"
version=$("$work/moved/bin/parry" version | cut -d' ' -f2)

configure() {
  cmake -S "$here/consumer" -B "$work/$1" -G Ninja -DCMAKE_PREFIX_PATH="$work/moved" -DWANTED_VERSION="$2" >"$work/log" 2>&1
}

configure build "${version%.*}" || fail "find_package(parry ${version%.*}): $(cat "$work/log")"
cmake --build "$work/build" >"$work/log" || fail "$(cat "$work/log")"
for program in with_parry with_parry_static; do
  static=${program#with_parry}
  # libparry.so knows where it is; a static host knows only the prefix it was configured for, unless it is told.
  env ${static:+"PARRY_SHARE=$work/moved/share/parry/policies"} "$work/build/$program" >"$work/said" || fail "$program: exit $?"
  grep -q "^parry $version: retry in " "$work/said" || fail "$program said: $(cat "$work/said")"
done
ldd "$work/build/with_parry" | grep -q "$work/moved/.*/libparry.so" || fail "with_parry does not use the moved libparry.so"
ldd "$work/build/with_parry_static" | grep -q libparry && fail "with_parry_static needs libparry.so"
configure newer 0.999 && fail "parry $version was taken for 0.999"
echo "consumer: ok"
