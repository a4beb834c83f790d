#!/usr/bin/env bash
# Get a Prometheus; print the path of its program.
#
#   prometheus=$(tests/prometheus/environment.sh) || exit 1
#
# Input (optional): PROMETHEUS_DIR, where it lies (default .drills/prometheus in the checkout; `make clean` removes it).
# Takes the one that is installed; else Debian's package, unpacked there and not installed. On failure: one line on
# stderr, exit 1.
set -euo pipefail
die() { echo "prometheus/environment.sh: $*" >&2; exit 1; }
command -v prometheus && exit 0
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIR=${PROMETHEUS_DIR:-$HERE/../../.drills/prometheus}
mkdir -p "$DIR" 2>/dev/null || die "cannot create $DIR"
DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/lock"; flock 9

if ! [ -x "$DIR/root/usr/bin/prometheus" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "no prometheus on PATH, and no Debian to take one from"
  (cd "$DIR" && apt-get download prometheus) >>"$DIR/log" 2>&1 || die "apt-get could not download prometheus (log: $DIR/log)"
  dpkg-deb -x "$DIR"/prometheus_*.deb "$DIR/root" >>"$DIR/log" 2>&1 || die "its package could not be unpacked (log: $DIR/log)"
fi
echo "$DIR/root/usr/bin/prometheus"
