#!/usr/bin/env bash
# Make the environment of a classifier server that this project did not write; print its python.
#
#   python=$(tests/servers/environment.sh triton) || exit 1     # or kserve
#
# Input (optional): SERVERS_DIR, where environments lie (default .drills/servers in the checkout; `make clean`
# removes it). Made once: a later call prints the same path. Servers pin what the stage's own environment must not:
# hence one for each. On failure: one line on stderr, exit 1.
set -euo pipefail
die() { echo "servers/environment.sh: $*" >&2; exit 1; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case "${1:-}" in
  # setuptools: its stub of the server imports pkg_resources
  triton) PACKAGES=("nvidia-pytriton==0.7.0" "numpy<3" "onnxruntime>=1.22,<2" "pillow>=11" "setuptools<81") ;;
  # the server's own ranges are open, and what came after these breaks it
  kserve) PACKAGES=("kserve==0.21.0" "pandas<3" "protobuf<7" "psutil<6" "numpy<3" "onnxruntime>=1.22,<2" "pillow>=11") ;;
  *) die "expected triton or kserve, found '${1:-nothing}'" ;;
esac
DIR=${SERVERS_DIR:-$HERE/../../.drills/servers}/$1
mkdir -p "$DIR" 2>/dev/null || die "cannot create $DIR"
DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/lock"; flock 9

STAMP=$DIR/.installed WANTED="${PACKAGES[*]}"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
  rm -f "$STAMP"
  "${SERVERS_PYTHON:-python3}" -m venv --clear "$DIR/venv" 2>>"$DIR/log" || die "no virtual environment can be made (log: $DIR/log)"
  "$DIR/venv/bin/python" -m pip --disable-pip-version-check install --quiet "${PACKAGES[@]}" >>"$DIR/log" 2>&1 \
    || die "pip could not install ${PACKAGES[*]}: $(grep -a ERROR "$DIR/log" | tail -n1) (log: $DIR/log)"
  echo "$WANTED" >"$STAMP"
fi
echo "$DIR/venv/bin/python"
