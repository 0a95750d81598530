#!/usr/bin/env bash
# Who may include what. The layers of the source tree are a promise (core/README.md); this keeps it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
status=0

# refuse MESSAGE: fails when there is anything on stdin.
refuse() {
  local found
  found=$(cat)
  [ -z "$found" ] && return
  printf 'layers: %s\n%s\n\n' "$1" "$found" >&2
  status=1
}

# includes PATTERN DIR...: the #include lines that match.
includes() {
  local pattern=$1
  shift
  grep -rnE --include='*.[ch]' --include='*.[ch]pp' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($pattern)[>\"]" "$@" || true
}

# names DIR: the headers of a folder as an alternation, or something that never matches.
names() {
  local list
  list=$(find "$1" -maxdepth 1 -name '*.h' -printf '%f\n' | sed 's/\./\\./' | paste -sd'|')
  echo "${list:-no such header}"
}

[ -n "$(includes '[^>"]*' core/engine)" ] || refuse "no sources found" <<<"core/engine"

refuse "only bindings/lua includes Lua" < <(includes '([^>"]*/)?(lua|lauxlib|lualib|luaconf|lua-cjson)\.h' core)
refuse "core/engine includes nothing of bindings" < <(includes "([^>\"]*/)?($(names bindings/lua))" core/engine)
refuse "core/engine includes nothing of core/service or core/cli" \
  < <(includes "([^>\"]*/)?($(names core/service)|$(names core/cli))" core/engine bindings)
refuse "of what hosts are written with, only the Lua module includes Lua" \
  < <(includes '([^>"]*/)?(lua|lauxlib|lualib|luaconf|lua-cjson)\.h' bindings |
    grep -vE '^bindings/(lua|lua_module)/' || true)
for folder in bindings/*/; do
  [ "$folder" = bindings/lua/ ] ||
    refuse "${folder%/} includes parry.h and parry.hpp, nothing else of parry" \
      < <(includes "([^>\"]*/)?($(names core/engine)|$(names core/service)|$(names core/cli)|$(names bindings/lua))" "$folder")
done
refuse "core/service includes nothing of core/cli" < <(includes "([^>\"]*/)?($(names core/cli))" core/service)
refuse "libevent and curl appear only in loop, server and http, and never in a header others include" \
  < <(includes '(event2|curl)/[^>"]*' core bindings |
    grep -vE '^core/(engine/(loop|http)|service/(server|http_admin))(_[a-z]+)*(\.c|_internal\.h):' || true)
exit $status
