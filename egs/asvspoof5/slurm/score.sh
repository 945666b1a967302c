#!/usr/bin/env bash
# Stage 5 of run.sh, scores of dev and eval, as an array: each task scores one part, on one GPU. report.sh follows.
#
#   cd egs/asvspoof5; sbatch slurm/score.sh --exp exp/try1   # the options of run.sh
#
# Change the lines marked EDIT. A task that ended early keeps its scores: submit the same command again, or with
# --array=3,5 only those tasks.
#SBATCH --job-name=score
#SBATCH --output=slurm/%x-%A_%a.log  # beside this file; the folder must exist, or the job fails silently
#SBATCH --open-mode=append           # a requeued task appends to its log
#SBATCH --array=1-8                  # EDIT: tasks, from 1; change parts below with it
##SBATCH --account=PROJECT           # EDIT: remove one # and name the project, if the cluster charges one
##SBATCH --partition=gpu             # EDIT: remove one # and name the queue with the GPUs, if it is not the default
#SBATCH --gpus-per-node=1            # one: a task is one process
#SBATCH --cpus-per-task=8            # EDIT: cores: they read and decode the audio
#SBATCH --mem=32G                    # EDIT: memory of a task
#SBATCH --time=2:00:00               # EDIT: per task; README.md states the total
#SBATCH --nodes=1 --ntasks=1
#SBATCH --requeue                    # after a preemption or the failure of a machine; a task resumes
set -euo pipefail

parts=8                              # EDIT: the last number of --array above

. slurm/job.sh
# A requeued task resumes, even if it was submitted with --overwrite.
./run.sh --device cuda --workers "$SLURM_CPUS_PER_TASK" "$@" --score-args "--part $SLURM_ARRAY_TASK_ID/$parts" \
  ${SLURM_RESTART_COUNT:+--overwrite false} --stage 5 --stop-stage 5
