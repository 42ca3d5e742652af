#!/bin/bash
# vm.sh COMMAND [ARG ...]: run COMMAND where /dev/video0 and video1 are V4L2 cameras, on any Debian amd64 machine.
#
# The cameras are two of the kernel's virtual webcam (vivid) under Debian's kernel in qemu; unbinding its driver takes
# both. The VM's root is this machine's, read only below a layer in memory, and the current folder is the same, so .venv
# is there and what COMMAND writes is forgotten. There is no network. COMMAND's output comes out here, its exit code is
# ours; 124: over TIMEOUT, 125: the VM failed. Without KVM, Python runs about 15 times slower in there: build and compile
# outside what can be.
#
#   TIMEOUT=300  seconds, boot included        MEMORY=2G        KERNEL_LOG=1  show the kernel's messages
#   CAMERA_BUNDLE=FILE.edge  the model that the tests run; by default a tiny one, built before the boot
#   ARCH=arm64 ROOT=FOLDER  emulate an ARM board (Cortex-A72) with that arm64 root for its own; COMMAND begins in /
#
# What is missing is installed by apt-get (as root); kernel and modules, 35 MB, are kept in
# ${XDG_CACHE_HOME:-~/.cache}/edge-run/camera-vm, for arm64 in camera-vm-arm64.
set -euo pipefail
die() { echo "vm.sh: $*" >&2; exit 125; }
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 2; }
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs Debian on amd64, whose kernel it boots"
project=$(realpath "$(dirname "$0")/../..")
arch=${ARCH:-amd64} root=${ROOT:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edge-run/camera-vm
apt=()
case $arch in
  amd64)
    [ -z "$root" ] || die "ROOT is for ARCH=arm64; the VM has this machine's root"
    emulator=qemu-system-x86_64 package=qemu-system-x86 console=ttyS0 exits=ttyS1 ;;
  arm64)
    [ -n "$root" ] && [ -e "$root/bin/sh" ] || die "ARCH=arm64 needs ROOT=FOLDER, an arm64 root (quantize/arm64_root.sh makes one)"
    root=$(realpath "$root") cache=$cache-arm64
    emulator=qemu-system-aarch64 package=qemu-system-arm console=ttyAMA0 exits=ttyS0 ;;
  *) die "ARCH is amd64 or arm64" ;;
esac
mkdir -p "$cache"
work=$(mktemp -d ${root:+-p "$root/tmp"}) # the VM reads its script there
trap 'rm -rf "$work"' EXIT

missing=()
for need in "$emulator:$package" cpio:cpio depmod:kmod xz:xz-utils v4l2-ctl:v4l-utils; do
  PATH=$PATH:/sbin command -v "${need%:*}" >/dev/null || missing+=("${need#*:}")
done
if [ ${#missing[@]} -gt 0 ] || [ ! -e "$cache/initrd" ]; then apt-get update -q >&2; fi
[ ${#missing[@]} = 0 ] || apt-get install -qy --no-install-recommends "${missing[@]}" >&2

# Writes $cache/kernel, and $cache/initrd: busybox, the modules in loading order and the init below.
make_kernel() {
  local image version start
  mkdir -p "$work"/{debs,root,initrd/bin,initrd/modules}
  if [ "$arch" = arm64 ]; then # package lists of its own: this machine's are amd64's
    mkdir -p "$work"/lists/partial "$work"/archives/partial
    apt=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/archives")
    apt-get "${apt[@]}" -o APT::Sandbox::User=root update -q
  fi
  image=$(apt-cache "${apt[@]}" depends "linux-image-$arch" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)/\1/p' | head -1)
  [ -n "$image" ] || die "apt knows no linux-image-$arch; is this Debian?"
  (cd "$work/debs" && apt-get "${apt[@]}" -o APT::Sandbox::User=root download -q "$image" busybox-static)
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  version=$(ls "$work/root/lib/modules")
  /sbin/depmod -b "$work/root" "$version"
  for module in virtio_pci virtio-rng 9pnet_virtio 9p overlay vivid; do
    /sbin/modprobe -d "$work/root" -S "$version" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
    cp "$path" "$work/initrd/modules/"
    basename "$path" >>"$work/initrd/modules/order"
  done
  cp "$work/root/bin/busybox" "$work/initrd/bin/"
  init >"$work/initrd/init"
  chmod 755 "$work/initrd/init"
  if [ "$arch" = amd64 ]; then # unpacked here, because an emulated processor takes 6 s to do it
    start=$(LC_ALL=C grep -abo $'\xfd7zXZ' "$work/root/boot/vmlinuz-$version" | head -1 | cut -d: -f1)
    { tail -c +$((start + 1)) "$work/root/boot/vmlinuz-$version" || true; } | xz -dc --single-stream >"$cache/kernel"
  else
    cp "$work/root/boot/vmlinuz-$version" "$cache/kernel"
  fi
  (cd "$work/initrd" && find . | cpio -o -H newc --quiet | gzip) >"$work/initrd.gz"
  mv "$work/initrd.gz" "$cache/initrd" # last: its presence says that all is there
}

# The VM's first process. `script`, a path in the VM's root, and `exits`, a serial line, come from the kernel's command line.
init() {
  cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /lower /upper /root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1; stty -onlcr </dev/console
fail() { echo "vm.sh: in the VM: $*"; poweroff -f; }
while read -r module; do
  case $module in vivid.ko) with='n_devs=2 node_types=0x1,0x1 num_inputs=1,1 input_types=0x0,0x0' ;; *) with= ;; esac
  insmod /modules/$module $with || fail "$module does not load"
done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose host /lower || fail "the root is not there"
mount -t tmpfs -o size=75% upper /upper; mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /root || fail "no overlay"
for folder in proc sys dev; do mkdir -p /root/$folder; mount --bind /$folder /root/$folder; done
for folder in run dev/shm; do mkdir -p /root/$folder; mount -t tmpfs tmp /root/$folder; done
ip link set lo up
chroot /root /bin/sh "$script"
echo $? >/dev/$exits
echo 0 >/proc/sys/kernel/printk # the kernel's farewell is no output of COMMAND
poweroff -f
INIT
}

# shellcheck disable=SC2094
recipe=$(sha256sum <"$0")
if [ ! -e "$cache/initrd" ] || [ "$(cat "$cache/recipe" 2>/dev/null)" != "$recipe" ]; then
  make_kernel >&2
  echo "$recipe" >"$cache/recipe"
fi

if [ -z "$root" ] && [ -z "${CAMERA_BUNDLE:-}" ]; then
  CAMERA_BUNDLE=$work/tiny.edge
  PYTHONPATH=$project "$project/.venv/bin/python" -c \
    'import sys; from tests.tiny import tiny_bundle; tiny_bundle(sys.argv[1])' "$CAMERA_BUNDLE" >&2 || die "cannot build the tiny bundle"
fi
{
  echo "export PATH=$PATH:/sbin HOME=/root LANG=C.UTF-8 TERM=dumb CAMERA_VM=1"
  # what the other tests' conftest and pytest's plugins import would take most of a minute in there
  echo "export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTEST_ADDOPTS=--noconftest"
  [ -n "$root" ] || printf 'export CAMERA_BUNDLE=%q\ncd %q || exit 125\n' "$(realpath "$CAMERA_BUNDLE")" "$PWD"
  printf '%q ' "$@"
} >"$work/script"
: >"$work/exit"

if [ "$arch" = arm64 ]; then # this board has one serial line of its own
  machine=(-M virt -accel "tcg,thread=multi" -cpu cortex-a72)
  second=(-chardev "file,id=exit,path=$work/exit" -device pci-serial,chardev=exit)
else
  machine=(-M pc -accel "tcg,thread=multi" -cpu max)
  # nested without the processor's help, KVM is slower than emulation
  if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then machine=(-M pc -accel kvm -cpu host); fi
  second=(-serial "file:$work/exit")
fi
status=0
timeout --foreground -k 5 "${TIMEOUT:-300}" "$emulator" \
  -nodefaults -no-user-config -display none -no-reboot "${machine[@]}" -m "${MEMORY:-2G}" -smp 2 \
  -kernel "$cache/kernel" -initrd "$cache/initrd" \
  -append "console=$console panic=-1 ${KERNEL_LOG:-quiet loglevel=1} script=${work#"$root"}/script exits=$exits" \
  -serial stdio "${second[@]}" -device virtio-rng-pci \
  -virtfs "local,path=${root:-/},mount_tag=host,security_model=none,readonly=on,multidevs=remap" </dev/null || status=$?
case $status in 124 | 137) echo "vm.sh: stopped after ${TIMEOUT:-300} s" >&2; exit 124 ;; esac
status=$(tr -dc 0-9 <"$work/exit")
[ -n "$status" ] || die "the VM ended without an exit code (KERNEL_LOG=1 shows why)"
exit "$status"
