#!/usr/bin/env bash
# Merges the score files of score.sh's tasks, and runs stage 6 of run.sh, the report.
#
#   cd egs/asvspoof5; sbatch --dependency=afterok:JOB slurm/report.sh --exp exp/try1   # JOB: that of score.sh
#
# Change the lines marked EDIT.
#SBATCH --job-name=report
#SBATCH --output=slurm/%x-%j.log     # beside this file; the folder must exist, or the job fails silently
##SBATCH --account=PROJECT           # EDIT: remove one # and name the project, if the cluster charges one
##SBATCH --partition=cpu             # EDIT: remove one # and name a queue without GPUs, if it is not the default
#SBATCH --cpus-per-task=2            # EDIT: cores
#SBATCH --mem=8G                     # EDIT: memory
#SBATCH --time=0:30:00               # EDIT: a few minutes, mostly for a million lines of scores
#SBATCH --nodes=1 --ntasks=1
set -euo pipefail

. slurm/job.sh
./run.sh --device cpu "$@" --score-args --merge --stage 5 --stop-stage 6  # stage 5 only merges
