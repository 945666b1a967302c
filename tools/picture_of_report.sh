#!/usr/bin/env bash
# Renders the top of an HTML report as a PNG, for the README. Needs Chromium (sudo apt install chromium).
#
#   tools/picture_of_report.sh egs/mini/exp/mixframe_seed0/results/eval/report.html docs/report.png
set -euo pipefail
if (($# != 2)); then echo "usage: $0 REPORT.html OUT.png" >&2; exit 2; fi
if [[ ! -f $1 ]]; then echo "$0: no file $1; create it with: spoofkit evaluate" >&2; exit 1; fi
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  { echo "$0: no Chromium found; install it (sudo apt install chromium)" >&2; exit 1; }
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
"$browser" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync \
  --user-data-dir="$profile" --hide-scrollbars --window-size=1100,1340 --screenshot="$2" "file://$(realpath "$1")" 2>/dev/null
echo "$2"
