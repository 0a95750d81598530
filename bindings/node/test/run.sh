#!/usr/bin/env bash
# Tests the package for Node as programs get it: packed, installed offline into an empty folder, nothing compiled there.
# Usage: run.sh BUILD_DIR [PREFIX]   with PREFIX against that installed libparry and program instead of the package's own
# PARRY_NODE names another node than the one in PATH; PARRY_CALLS how many calls the leak test makes.
set -euo pipefail

build=$(cd "${1:?usage: run.sh BUILD_DIR [PREFIX]}" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/../../.." && pwd)
node=${PARRY_NODE:-node}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/test"
cd "$work"
npm pack --silent --ignore-scripts "$build/bindings/node/package" >packed
echo '{ "private": true }' >package.json
npm install --offline --silent --no-audit --no-fund --ignore-scripts "./$(cat packed)"
package=$work/node_modules/parry-engine

export PARRY_BIN=${PARRY_BIN:-$build/parry}
if [ $# -gt 1 ]; then
  export PARRY_BIN=$2/bin/parry
  LD_LIBRARY_PATH=$(dirname "$(find "$2" -name 'libparry.so' | head -1)"):${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH
  rm "$package"/native/*/libparry.so.* # only the installed one is left
fi

# The official SDKs, as the end-to-end tests install them.
PARRY_SDK=$(cd "$source/tests/e2e" && PARRY_BIN=$build/parry PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c \
  'import test_sdk; print(test_sdk.installed())')
export PARRY_SDK PARRY_SOURCE=$source PARRY_PACKAGE=$package

cp "$here"/*.js "$work/test/"
mkdir "$work/examples"
cp "$source"/bindings/examples/node/* "$work/examples/"
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY PARRY_SHARE
status=0
"$node" --expose-gc --test ${PARRY_NODE_TESTS:-test/*.test.js} >log 2>&1 || status=$?
count() { awk -v name="$1" '$2 == name { n = $3 } END { print n + 0 }' log; }
if [ $status != 0 ] || [ -n "${PARRY_VERBOSE:-}" ]; then
  cat log
fi
"$node" --version
echo "$(count pass) passed, $(count fail) failed, $(count skipped) skipped"
exit $status
