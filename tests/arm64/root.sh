#!/usr/bin/env bash
# root.sh ROOT WHEEL: a Debian arm64 root under emulation with our wheel and its engines in /opt/site.
# Needs root and the package indexes; what is done already is not done again, but the wheel.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
root=$1 wheel=$2
suite=bookworm
hook=/proc/sys/fs/binfmt_misc

need() { command -v debootstrap qemu-aarch64-static update-binfmts | wc -l; }
if [ "$(need)" -lt 3 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends debootstrap qemu-user-static binfmt-support >/dev/null
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

platforms=$(for glibc in 17 24 26 27 28 31 34 35 36; do printf -- '--platform manylinux_2_%s_aarch64 ' $glibc; done)
# shellcheck disable=SC2086
"${PYTHON:-python3}" -m pip install -q --disable-pip-version-check --no-compile --upgrade --target "$root/opt/site" --only-binary=:all: \
  --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms --platform manylinux2014_aarch64 \
  -c "$(dirname "$0")/../../constraints.txt" "$wheel[onnx,tflite]"
