#!/usr/bin/env bash
# Get what looks at a page as people do: Chromium, and for Node axe-core and puppeteer-core; print the folder of the latter.
#
#   modules=$(tests/browser/environment.sh) || exit 1
#
# Input (optional): BROWSER_DIR, where the packages lie (default .drills/browser in the checkout; `make clean` removes
# it). Chromium is the system's (Debian: apt-get install chromium). On failure: one line on stderr, exit 1.
set -euo pipefail
die() { echo "browser/environment.sh: $*" >&2; exit 1; }
PACKAGES=("axe-core@4.14.1" "puppeteer-core@24")
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v chromium >/dev/null || die "no chromium on PATH (Debian: apt-get install chromium)"
command -v node >/dev/null && command -v npm >/dev/null || die "no node or no npm on PATH"
DIR=${BROWSER_DIR:-$HERE/../../.drills/browser}
mkdir -p "$DIR" 2>/dev/null || die "cannot create $DIR"
DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/lock"; flock 9

STAMP=$DIR/.installed WANTED="${PACKAGES[*]}"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
  (cd "$DIR" && npm install --no-audit --no-fund --no-save --prefix "$DIR" "${PACKAGES[@]}") >>"$DIR/log" 2>&1 \
    || die "npm could not install ${PACKAGES[*]} (log: $DIR/log)"
  echo "$WANTED" >"$STAMP"
fi
echo "$DIR"
