#!/usr/bin/env bash
# What systemd itself thinks of the units, where it is installed: no mistake in them, and the service can do little harm.
# How the service behaves is shown in tests/e2e/test_units.py.
# Usage: units.sh BUILD_DIR
set -euo pipefail

build=$(cd "${1:?usage: units.sh BUILD_DIR}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset DESTDIR

if ! command -v systemd-analyze >/dev/null; then
  echo "units: 1 skipped, there is no systemd-analyze"
  exit 77
fi
cmake --install "$build" --prefix "$work/tree" --component parry >"$work/log"
cd "$work/tree/lib/systemd/system"
systemd-analyze verify --man=no ./parry.service ./parry.socket >"$work/verified" 2>&1 || { cat "$work/verified" >&2 && exit 1; }
if grep -E 'parry\.(service|socket)' "$work/verified" >&2; then
  exit 1
fi
# Exposure of at most 2.0: the network, which it is for, is all that it has.
systemd-analyze security --no-pager --offline=yes --threshold=20 ./parry.service >"$work/exposure" || {
  cat "$work/exposure" >&2
  exit 1
}
tail -1 "$work/exposure"
echo "units: ok"
