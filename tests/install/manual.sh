#!/usr/bin/env bash
# The manual pages of a build: one for each command, with all that its --help says, and in order for whoever formats them.
# Usage: manual.sh BUILD_DIR
set -euo pipefail
export LC_ALL=C.UTF-8

build=$(cd "${1:?usage: manual.sh BUILD_DIR}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

complain() {
  echo "manual: $*" >&2
  status=1
}

# The words of a page, its escapes undone.
words() { sed -e 's/\\-/-/g; s/\\(aq/'"'"'/g; s/\\(ga/`/g; s/\\(ti/~/g; s/\\(ha/^/g; s/\\f[BIR]//g; s/\\&//g; s/\\e/\\/g' "$1"; }

commands=$("$build/parry" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -gt 10 ] || complain "parry --help shows no commands"
words "$build/man/parry.1" >"$work/program"
words "$build/man/parry.h.3" >"$work/header"
for command in $commands; do
  page=$build/man/parry-$command.1
  [ -s "$page" ] || { complain "no page for parry $command" && continue; }
  words "$page" >"$work/words"
  "$build/parry" "$command" --help >"$work/help"
  for option in $(grep -oE '^  +(-., )?--[a-z-]+' "$work/help" | grep -oE -- '--[a-z-]+'); do
    grep -q -- "^\(-., \)\?$option\b" "$work/words" || complain "parry-$command(1) does not explain $option"
  done
  # Every word of the help is in the page; labels became headings.
  missing=$(comm -23 <(grep -v '^usage:' "$work/help" | sed -e 's/^exit codes:\|^see also:\|^signals:\|^[Ee]xample:\|^options://' \
    -e 's/show this$//' | grep -oE '[A-Za-z_]{4,}' | sort -u) <(grep -oE '[A-Za-z_]{4,}' "$work/words" | sort -u) | xargs)
  [ -z "$missing" ] || complain "parry-$command(1) lacks $missing"
  for code in $(sed -n '/^exit codes:/,/^see also/p' "$work/help" | grep -oE '(: |; |^ +)[0-9]+ ' | tr -dc '0-9\n'); do
    grep -A1 '^\.TP' "$page" | grep -qx "\.B $code" || complain "parry-$command(1) lacks exit status $code"
  done
  grep -qx "\.BR parry-$command (1),\?" "$work/program" || complain "parry(1) does not name parry-$command(1)"
done
for function in $(grep -oE 'parry_[a-z_]+\(' "$(dirname "${BASH_SOURCE[0]}")/../../core/include/parry.h" | tr -d '(' | sort -u); do
  grep -q "$function(" "$work/header" || complain "parry.h(3) lacks $function()"
done

# Those who format pages have nothing to complain of, and nothing is lost on a narrow screen of plain text.
for page in "$build"/man/*; do
  if command -v mandoc >/dev/null; then
    mandoc -Tlint -Wwarning "$page" >&2 || complain "mandoc: ${page##*/}"
  fi
  if command -v groff >/dev/null; then
    groff -man -Tutf8 -Kutf8 -ww -z "$page" 2>&1 | grep . >&2 && complain "groff: ${page##*/}"
  fi
done
[ $status = 0 ] && echo "manual: ok"
exit $status
