#!/usr/bin/env bash
# Make an environment whose Ray has its dashboard and job server; print its python.
#
#   python=$(tests/cluster/environment.sh) || exit 1
#
# Inputs (optional): CLUSTER_PYTHON, the python of the stage's own environment (default python3), which the new one
# shows through, so that only what Ray's dashboard needs is installed; CLUSTER_DIR, where it lies (default
# .drills/cluster in the checkout; `make clean` removes it). Made once. On failure: one line on stderr, exit 1.
set -euo pipefail
die() { echo "cluster/environment.sh: $*" >&2; exit 1; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$HERE/../..
BESIDE=$("${CLUSTER_PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
DIR=${CLUSTER_DIR:-$ROOT/.drills/cluster}
mkdir -p "$DIR" 2>/dev/null || die "cannot create $DIR"
DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/lock"; flock 9

STAMP=$DIR/.installed WANTED="$(grep '^ray==' "$ROOT/constraints.txt") $BESIDE"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
  rm -f "$STAMP"
  "${CLUSTER_PYTHON:-python3}" -m venv --clear "$DIR/venv" 2>>"$DIR/log" || die "no virtual environment can be made (log: $DIR/log)"
  echo "import site; site.addsitedir('$BESIDE')" >"$("$DIR/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
  "$DIR/venv/bin/python" -m pip --disable-pip-version-check install --quiet -c "$ROOT/constraints.txt" 'ray[default]' >>"$DIR/log" 2>&1 \
    || die "pip could not install ray[default]: $(grep -a ERROR "$DIR/log" | tail -n1) (log: $DIR/log)"
  echo "$WANTED" >"$STAMP"
fi
echo "$DIR/venv/bin/python"
