#!/usr/bin/env bash
# Runs a command against a simulator of its own, whose faults start anew: its last argument is the simulator's base URL.
# Usage: with_sim.sh PARRY COMMAND [ARG...]
set -euo pipefail

parry=${1:?usage: with_sim.sh PARRY COMMAND [ARG...]}
shift
log=$(mktemp)
trap 'kill "$sim" && wait "$sim" || true; rm -f "$log"' EXIT
"$parry" sim --listen 127.0.0.1:0 2>"$log" &
sim=$!
address=''
for _ in $(seq 400); do
  address=$(sed -n 's|.*ready on \(http://[^ ]*\).*|\1|p' "$log")
  [ -z "$address" ] || break
  sleep 0.05
done
[ -n "$address" ] || { echo "with_sim: parry sim did not start: $(cat "$log")" >&2 && exit 1; }
"$@" "$address/v1"
