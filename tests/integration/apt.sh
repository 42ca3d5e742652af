#!/bin/sh
# apt.sh: install what the integration tests need from apt, where that is possible; what is missing is skipped, aloud.
set -eu
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
python3=$(command -v /usr/bin/python3 || true)
if [ -n "$python3" ] && command -v gst-launch-1.0 >/dev/null &&
  "$python3" -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null; then exit 0; fi
apt-get update -q >&2
apt-get install -qy --no-install-recommends python3-gi python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 \
  gir1.2-gst-plugins-base-1.0 gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  gstreamer1.0-plugins-ugly >&2
