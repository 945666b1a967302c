#!/usr/bin/env bash
# What works on a GPU, and how fast: all that spoofkit does there, in under eight minutes, without network.
#
#   benchmarks/gpu.sh OUT --wheels wheels --commit "$(git rev-parse --short HEAD)"
#   benchmarks/gpu.sh OUT --device cpu --size tiny       # the same without a GPU, in two minutes: try the script itself
#   benchmarks/gpu.sh OUT --parts scores,group           # some parts alone
#
# OUT gets block.md, to be pasted into benchmarks/RESULTS.md, results.json with all figures, and log.txt; all are
# written again as soon as a row is there, so a machine that is taken away leaves what was done. Exit code 1 if a part
# failed or was not run; the others are there all the same.
#
# It runs with the `python3` of PATH, or $PYTHON, which needs PyTorch and transformers. What else is missing there comes
# from --wheels; fill that folder beforehand, where there is network (35 MB, for Python 3.12 on x86_64):
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
#     --platform manylinux2014_x86_64 -r benchmarks/gpu/wheels.txt -d wheels
set -euo pipefail

python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
wheels=
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=${2:?--wheels: name the folder}; shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done

export PYTHONPATH="$here/..:$here${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 MPLBACKEND=Agg PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
  export PYTHONPATH="$site:$PYTHONPATH"
fi
"$python" -m gpu "${arguments[@]}"
