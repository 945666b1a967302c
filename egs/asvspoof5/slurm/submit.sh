#!/usr/bin/env bash
# Submits stages 3 to 6 of run.sh to Slurm as four jobs; each starts when the one before it has ended well.
#
#   slurm/submit.sh                                            # conf/mfpt.yaml, as run.sh
#   slurm/submit.sh --exp exp/direct --posttrain false         # three jobs
#
# Before: the lines with EDIT in the jobs, and ./run.sh --stop-stage 2 (README.md). The options are those of run.sh;
# paths count from egs/asvspoof5.
set -euo pipefail
cd "$(dirname "$0")/.."

./run.sh "$@" --help >/dev/null  # a misspelt option is refused here, not hours later
. slurm/job.sh
jobs=(posttrain finetune score report)
case " $* " in *" --posttrain false "* | *" --posttrain=false "*) jobs=("${jobs[@]:1}") ;; esac

after=()
for job in "${jobs[@]}"; do
  id=$(sbatch --parsable ${after[@]+"${after[@]}"} "slurm/$job.sh" "$@")
  id=${id%%;*}  # a cluster's name may follow
  echo "$job: job $id, log: egs/asvspoof5/slurm/$job-$id*.log"
  after=("--dependency=afterok:$id" --kill-on-invalid-dep=yes)
done
