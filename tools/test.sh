#!/usr/bin/env bash
# Runs what CI runs: linter, formatter, type check, tests. Arguments go to pytest.
#
#   tools/test.sh                  # what must pass before a commit lands
#   tools/test.sh --all            # also what is marked `release`: long runs, fuzzes, random kills
#   tools/test.sh -k manifest -x   # some tests; stop at the first failure
#
# Sets up the environment first (tools/setup.sh --extras dev). Exits with 1 if anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SPOOFKIT_EXTRAS=dev . tools/activate.sh

marks='not release'
if [[ ${1-} == --all ]]; then marks='' && shift; fi
workers=$(nproc) # asked first: nproc heeds OMP_NUM_THREADS
# One thread for each pytest worker: more threads than cores make each other slow.
# No test but the one that builds an image uses the network.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=Agg HF_HUB_OFFLINE=1
if ((workers > 8)); then workers=8; fi # each holds torch in memory

failed=()
check() { # check NAME COMMAND...: continues after a failure, so that one call shows all failures
  local name=$1; shift
  printf '== %s\n' "$name" >&2
  "$@" || failed+=("$name")
}
check 'ruff check' python -m ruff check .
check 'ruff format' python -m ruff format --check .
check 'mypy' python -m mypy
check 'pytest' python -m pytest -n "$workers" --dist worksteal -m "$marks" "$@"

if ((${#failed[@]})); then
  printf 'tools/test.sh: failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
