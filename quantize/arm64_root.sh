#!/usr/bin/env bash
# arm64_root.sh [ROOT [PIP_ARGUMENT ...]]: a Debian arm64 root for emulation, with what pip is told to install in /opt/site.
# Without arguments it is the root that quantize.instructions counts in, with the engines that PYTHON (default python3) has.
# Needs Debian, root, apt and the package index; what is done already is not done again. 40 seconds, 0.5 GB.
set -euo pipefail
case ${1:-} in -*) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;; esac
[ "$(id -u)" = 0 ] || { echo "arm64_root.sh: needs root for debootstrap and chroot; run it with sudo" >&2; exit 1; }
root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-run/arm64-root}
shift || true
python=${PYTHON:-python3}
suite=bookworm
hook=/proc/sys/fs/binfmt_misc
if [ $# = 0 ]; then
  for package in onnxruntime ai-edge-litert numpy msgspec; do
    set -- "$@" "$package==$("$python" -c "import importlib.metadata as m; print(m.version('$package'))")"
  done
fi
mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9 # one at a time, and not while quantize.instructions counts

need() { command -v debootstrap qemu-aarch64 qemu-aarch64-static update-binfmts gcc | wc -l; }
if [ "$(need)" -lt 5 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends \
    debootstrap qemu-user qemu-user-static binfmt-support gcc libc6-dev >/dev/null
fi
[ -e $hook/register ] || mount -t binfmt_misc none $hook
[ -e $hook/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64

if [ ! -e "$root/.complete" ]; then
  rm -rf "$root" && mkdir -p "$root"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
  debootstrap --arch=arm64 --variant=minbase --foreign --include=python3,ca-certificates $suite "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; exit 1; }
  # unpacked is enough to run Python; configuring every package under emulation takes eight minutes
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm "$root"/var/cache/apt/archives/*.deb
  chroot "$root" /sbin/ldconfig
  touch "$root/.complete"
fi

if [ "$*" != "$(cat "$root/opt/site/.arguments" 2>/dev/null)" ] || [[ "$*" == */* ]]; then # a wheel of the same name may have changed
  platforms=$(for glibc in 17 24 26 27 28 31 34 35 36; do printf -- '--platform manylinux_2_%s_aarch64 ' $glibc; done)
  rm -rf "$root/opt/site.new"
  # shellcheck disable=SC2086
  "$python" -m pip install -q --disable-pip-version-check --no-warn-conflicts --no-compile --target "$root/opt/site.new" --only-binary=:all: \
    --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms --platform manylinux2014_aarch64 "$@"
  echo "$*" >"$root/opt/site.new/.arguments"
  rm -rf "$root/opt/site" && mv "$root/opt/site.new" "$root/opt/site"
fi
