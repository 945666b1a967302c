#!/usr/bin/env bash
# Submits stages 3 to 6 of run.sh to Slurm as four jobs; each starts when the previous one has succeeded.
#
#   slurm/submit.sh                                            # conf/mfpt.yaml, as run.sh
#   slurm/submit.sh --exp exp/direct --posttrain false         # three jobs
#
# First edit the lines marked EDIT in the jobs, and run ./run.sh --stop-stage 2 with the same options (README.md). The
# options are those of run.sh, which checks them and the files of stages 1 and 2 before any job is queued.
set -euo pipefail
recipe=$(cd "$(dirname "$0")/.." && pwd)

for option in "$@"; do
  case $option in -h | --help) exec "$recipe/run.sh" --help ;; esac
done
. "$recipe/slurm/job.sh"
command -v sbatch >/dev/null || {
  echo "$0: sbatch not found; submit from a login node of the cluster, or use run.sh" >&2
  exit 1
}
options=$("$recipe/run.sh" "$@" --stage 3 --stop-stage 6 --dry-run)  # one per line, paths absolute
if [[ -n $options ]]; then mapfile -t options <<<"$options"; else options=(); fi
jobs=(posttrain finetune score report)
case " ${options[*]-} " in *" --posttrain=false "*) jobs=("${jobs[@]:1}") ;; esac

cd "$recipe"
after=() queued=()
for job in "${jobs[@]}"; do
  if ! id=$(sbatch --parsable ${after[@]+"${after[@]}"} "slurm/$job.sh" ${options[@]+"${options[@]}"}); then
    echo "$0: sbatch refused slurm/$job.sh, see above; correct its lines marked EDIT" >&2
    if ((${#queued[@]})); then
      echo "$0: already queued: ${queued[*]}; remove them with: scancel ${queued[*]}" >&2
    fi
    exit 1
  fi
  id=${id%%;*}  # the cluster's name may follow
  echo "$job: job $id, log: $recipe/slurm/$job-$id*.log"
  queued+=("$id") after=("--dependency=afterok:$id" --kill-on-invalid-dep=yes)
done
