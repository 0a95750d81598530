#!/usr/bin/env bash
# libparry exports exactly the functions in symbols.txt, which are those of parry.h (the ABI; a change there is a
# decision); keeps its internals in its own name space, needs no more libraries than it should, and cannot end the
# host's process or write to its stdout.
# Usage: symbols.sh LIBPARRY_SO LIBPARRY_A
set -euo pipefail
export LC_ALL=C

shared=${1:?usage: symbols.sh LIBPARRY_SO LIBPARRY_A}
static=${2:?usage: symbols.sh LIBPARRY_SO LIBPARRY_A}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
status=0

complain() {
  echo "symbols: $*" >&2
  status=1
}

declared=$(grep -oE '^PARRY_API .*\bparry_[a-z_]+\(' "$here/../../core/include/parry.h" |
  grep -oE 'parry_[a-z_]+\($' | tr -d '(' | sort)
diff -u "$here/symbols.txt" <(echo "$declared") || complain "parry.h does not declare what symbols.txt says"

exported=$(nm -D --defined-only --format=posix "$shared" | cut -d' ' -f1 | sort)
diff -u "$here/symbols.txt" <(echo "$exported") || complain "$shared does not export what symbols.txt says"

foreign=$(nm -g --defined-only --format=posix "$static" | awk 'NF > 2 && $1 !~ /^(parry|pry)_/ { print $1 }')
[ -z "$foreign" ] || complain "global names without parry_ or pry_: $foreign"

# Neither the server nor its database is in it.
service=$(comm -12 <(ar t "$static" | sort) <(cd "$here/../../core/service" && printf '%s.o\n' *.c | sort))
[ -z "$service" ] || complain "the gateway is in libparry: $service"
needed=$(readelf -d "$shared" | sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*/\1/p' |
  grep -vxE 'lib(lua5\.4|curl|event_core-2\.1|ssl|crypto|z|m|c|pthread|dl)' || true)
[ -z "$needed" ] || complain "libparry needs: $needed"

forbidden=$(nm -D --undefined-only --format=posix "$shared" | cut -d' ' -f1 |
  grep -E '^(abort|exit|_exit|_Exit|quick_exit|__assert_fail|stdout|puts|putchar|printf|__printf_chk|sqlite3_.*)(@|$)' || true)
[ -z "$forbidden" ] || complain "a library must not use: $forbidden"
exit $status
