#!/bin/sh
# apt.sh: install what the integration tests need from apt, where that is possible; what is missing is skipped, aloud.
set -eu
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
python3=$(command -v /usr/bin/python3 || true)
packages=
if [ -z "$python3" ] || ! command -v gst-launch-1.0 >/dev/null ||
  ! "$python3" -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null; then
  packages="python3-gi python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-tools
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
fi
command -v chromium >/dev/null || packages="$packages chromium fonts-dejavu-core"
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || packages="$packages mosquitto"
command -v mosquitto_sub >/dev/null || packages="$packages mosquitto-clients"
command -v promtool >/dev/null || packages="$packages prometheus"
command -v curl >/dev/null || packages="$packages curl"
command -v openssl >/dev/null || packages="$packages openssl"
[ -n "$packages" ] || exit 0
apt-get update -q >&2
# the tests start their own servers: none of the system's
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages >&2
