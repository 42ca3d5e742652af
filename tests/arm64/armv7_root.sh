#!/usr/bin/env bash
# armv7_root.sh ROOT WHEEL: a Debian armhf root for emulation with Debian's NumPy and OpenCV, and in /opt/site the wheel, tflite-runtime
# and what else edge-run needs. msgspec has no wheel for armv7 and is cross-compiled. Needs Debian, root, apt and the package index;
# what is done already is not done again, but for the wheel. 2 minutes, 0.8 GB.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "armv7_root.sh: needs root for debootstrap and chroot; run it with sudo" >&2; exit 1; }
root=$1 wheel=$2 python=${PYTHON:-python3} hook=/proc/sys/fs/binfmt_misc
pip() { "$python" -m pip "$@" -q --disable-pip-version-check --no-deps; }
mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9

if [ "$(command -v debootstrap qemu-arm-static update-binfmts arm-linux-gnueabihf-gcc | wc -l)" -lt 4 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends \
    debootstrap qemu-user-static binfmt-support gcc-arm-linux-gnueabihf libc6-dev-armhf-cross >/dev/null
fi
[ -e $hook/register ] || mount -t binfmt_misc none $hook
[ -e $hook/qemu-arm ] || update-binfmts --enable qemu-arm

if [ ! -e "$root/.complete" ]; then
  rm -rf "$root" && mkdir -p "$root/opt/site"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
  debootstrap --arch=armhf --variant=minbase --foreign --include=python3,python3-numpy,python3-opencv,libpython3.11-dev \
    bookworm "$root" "$mirror" >"$root.log" 2>&1 || { tail -5 "$root.log" >&2; exit 1; }
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm "$root"/var/cache/apt/archives/*.deb
  # BLAS and LAPACK come through update-alternatives, which only configured packages have
  mkdir -p "$root/etc/ld.so.conf.d"
  printf '/usr/lib/arm-linux-gnueabihf/%s\n' lapack blas >"$root/etc/ld.so.conf.d/0alternatives.conf"
  chroot "$root" /sbin/ldconfig

  platforms=$(for glibc in 17 24 28 31 34 35 36; do printf -- '--platform manylinux_2_%s_armv7l ' $glibc; done)
  # shellcheck disable=SC2086
  pip install --no-compile --target "$root/opt/site" --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi none \
    $platforms --platform manylinux2014_armv7l tflite-runtime==2.14.0 click urllib3
  build=$(mktemp -d)
  pip download --no-binary msgspec -d "$build" msgspec==0.21.1 # the last with a source archive that needs nothing newer
  tar -xf "$build"/msgspec-*.tar.gz -C "$build"
  cp -r "$build"/msgspec-*/src/msgspec "$root/opt/site/"
  arm-linux-gnueabihf-gcc -O2 -shared -fPIC -I "$root/usr/include/python3.11" -I "$root/usr/include" \
    -o "$root/opt/site/msgspec/_core.cpython-311-arm-linux-gnueabihf.so" "$root/opt/site/msgspec/_core.c"
  rm -rf "$build"
  touch "$root/.complete"
fi

for package in edge devices cloud train quantize; do rm -rf "$root/opt/site/$package"; done
rm -rf "$root"/opt/site/edge_run-*
"$python" -m zipfile -e "$wheel" "$root/opt/site"
