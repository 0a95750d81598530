#!/usr/bin/env bash
# Builds the Debian packages and looks at them as an administrator would: what is in them, what they need, what they do
# when they are installed; then unpacks them and lets the program recover a call.
# Usage: package.sh BUILD_DIR
set -euo pipefail
export LC_ALL=C.UTF-8

build=$(cd "${1:?usage: package.sh BUILD_DIR}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PARRY_SHARE DESTDIR
cd "$work"
status=0

complain() {
  echo "package: $*" >&2
  status=1
}

cpack --config "$build/CPackConfig.cmake" -B "$work/debs" >log 2>&1 || { cat log >&2 && exit 1; }
version=$("$build/parry" version | cut -d' ' -f2)
library=libparry${version%.*} # named by the SONAME
deb() { echo "$work/debs/$1_${version}-1_$(dpkg --print-architecture).deb"; }
field() { dpkg-deb -f "$(deb "$1")" "$2"; }
for package in "$library" libparry-dev parry; do
  dpkg-deb -x "$(deb "$package")" root || { ls debs >&2 && exit 1; }
  dpkg-deb -e "$(deb "$package")" "control-$package"
  dpkg-deb -c "$(deb "$package")" | awk '$2 != "root/root" || /^.....w|^........w/ && !/^l/' | grep . &&
    complain "$package: somebody else may write these"
  [[ $(field "$package" Description) == *$'\n'* ]] || complain "$package: no long description"
  zcat "root/usr/share/doc/$package/changelog.Debian.gz" | grep -q "^parry ($version-1) " || complain "$package: no changelog"
  [ -f "root/usr/share/doc/$package/copyright" ] || complain "$package: no copyright"
done

# has PACKAGE PATH...: these, and nothing else outside of share, are in it.
has() {
  local package=$1
  shift
  diff -u --label "$package: wanted" --label "$package: there" <(printf './%s\n' "$@" | sort) \
    <(dpkg-deb --fsys-tarfile "$(deb "$package")" | tar t | grep -v -e '/$' -e '^./usr/share/' | sort) >&2 || status=1
}
libdir=$(cd root && dirname "$(find usr/lib -name libparry.so)")
has "$library" "$libdir/libparry.so.$version" "$libdir/libparry.so.${version%.*}"
has libparry-dev "$libdir"/{libparry.a,libparry.so,pkgconfig/parry.pc} "$libdir"/cmake/parry/parry-config{,-version}.cmake \
  usr/include/parry.{h,hpp}
has parry etc/parry/policies/init.lua usr/bin/parry usr/lib/systemd/system/parry.{service,socket}
for file in policies/{init,retry,lib/backoff,dialects/openai}.lua policies/RUNNING.md meta/parry.lua; do
  [ -f "root/usr/share/parry/$file" ] || complain "parry lacks share/parry/$file"
done
[ -f root/usr/share/man/man3/parry.h.3.gz ] || complain "libparry-dev lacks parry.h(3)"

# dependencies are those that the linker sees; development files of one version fit its library only
for package in "$library" parry; do
  for needed in libc6 libcurl4 libevent-core liblua5.4-0 libssl zlib1g; do
    [[ $(field "$package" Depends) == *$needed* ]] || complain "$package does not depend on $needed: $(field "$package" Depends)"
  done
done
[[ $(field parry Depends) != *libparry* ]] || complain "the program has the library in it and must not depend on it"
[[ $(field libparry-dev Depends) == "$library (= $version-1), "* ]] || complain "libparry-dev: $(field libparry-dev Depends)"
# what pkg-config wants from other packages, libparry-dev must bring
for needed in $(PKG_CONFIG_PATH=root/$libdir/pkgconfig pkg-config --print-requires-private parry); do
  owner=$(dpkg -S "$(pkg-config --variable=pcfiledir "$needed")/$needed.pc" 2>/dev/null | cut -d: -f1) || continue
  [[ $(field libparry-dev Depends) == *$owner* ]] || complain "libparry-dev does not depend on $owner, which has $needed.pc"
done

# what happens at an installation
grep -qx "activate-noawait ldconfig" "control-$library/triggers" || complain "$library: no trigger for ldconfig"
grep -qx "libparry ${version%.*} $library (>= $version)" "control-$library/shlibs" || complain "$library: $(cat "control-$library/shlibs")"
[ "$(cat control-parry/conffiles)" = /etc/parry/policies/init.lua ] || complain "conffiles: $(cat control-parry/conffiles)"
for script in control-*/{postinst,prerm,postrm}; do
  [ ! -f "$script" ] || sh -n "$script" || complain "$script"
done
grep -qx 'ExecStart=/usr/bin/parry serve --policies /etc/parry/policies .*' root/usr/lib/systemd/system/parry.service ||
  complain "the unit does not start /usr/bin/parry"

# the program, with nothing but what was unpacked
parry=$work/root/usr/bin/parry
[ "$("$parry" version)" = "parry $version" ] || complain "parry version"
"$parry" check root/etc/parry/policies >checked 2>&1 || complain "the starter policies are refused: $(cat checked)"
grep -q '^root/etc/parry/policies/init.lua:[0-9]*: warning: secret "OPENAI_API_KEY"' checked || complain "check: $(cat checked)"
grep -v -e ': warning: secret "OPENAI_API_KEY"' checked | grep . && complain "check says more than the missing key"
timeout 90 "$parry" demo --once >demo 2>&1 || complain "demo --once: $(cat demo)"
grep -q 'all five kinds of failure have recovered' demo || complain "nothing recovered: $(cat demo)"

# completion asks --help
completed=$(bash -c 'source root/usr/share/bash-completion/completions/parry
  COMP_WORDS=("$1" reload --w) COMP_CWORD=2; _parry; echo "${COMPREPLY[@]}"
  COMP_WORDS=("$1" rol) COMP_CWORD=1; _parry; echo "${COMPREPLY[@]}"' bash "$parry" | xargs)
[ "$completed" = "--wait rollback" ] || complain "completion: '$completed'"
[ $status = 0 ] && echo "package: ok"
exit $status
