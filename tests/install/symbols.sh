#!/usr/bin/env bash
# libparry exports exactly the functions in symbols.txt (the ABI; a change here is a decision), keeps
# its internals in its own name space, and cannot end the host's process or write to its stdout.
# Usage: symbols.sh LIBPARRY_SO LIBPARRY_A
set -euo pipefail
export LC_ALL=C

shared=${1:?usage: symbols.sh LIBPARRY_SO LIBPARRY_A}
static=${2:?usage: symbols.sh LIBPARRY_SO LIBPARRY_A}
expected=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/symbols.txt
status=0

exported=$(nm -D --defined-only --format=posix "$shared" | cut -d' ' -f1 | sort)
if ! diff -u "$expected" <(echo "$exported"); then
  echo "symbols: $shared does not export what symbols.txt says" >&2
  status=1
fi

foreign=$(nm -g --defined-only --format=posix "$static" | awk 'NF > 2 && $1 !~ /^(parry|pry)_/ { print $1 }')
if [ -n "$foreign" ]; then
  echo "symbols: global names without parry_ or pry_: $foreign" >&2
  status=1
fi

forbidden=$(nm -D --undefined-only --format=posix "$shared" | cut -d' ' -f1 |
  grep -E '^(abort|exit|_exit|_Exit|quick_exit|__assert_fail|stdout|puts|putchar|printf|__printf_chk)(@|$)' || true)
if [ -n "$forbidden" ]; then
  echo "symbols: a library must not use: $forbidden" >&2
  status=1
fi
exit $status
