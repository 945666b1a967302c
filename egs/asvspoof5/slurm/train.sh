# Sourced by posttrain.sh and finetune.sh: runs a stage of run.sh on all GPUs of the job. Nothing to edit.
#
#   train_stage N OPTIONS...   runs stage N with these options of run.sh; requeues the job if its time runs out
#
# Five minutes before the end (--signal) the training gets a signal to save and stop, and the job is requeued; when it
# starts again, the same command resumes. The job is requeued if the signal was sent, whatever the exit code: it need
# not be 75, because srun may kill the processes of one machine after those of another have ended. Slurm does not
# requeue a preempted job that saves and ends within its grace time, so this script does. A job that fails or is
# cancelled is not requeued.
# shellcheck shell=bash
. slurm/job.sh

MAX_RESTARTS=100  # so that a job without progress is not requeued for ever
# Slurm signals only what srun started; spoofkit.torchrun, one on each machine, passes the signal on. This script runs
# on the first machine of the job, which is the rendezvous.
SPOOFKIT_GPU_CMD="srun --nodes=$SLURM_NNODES --ntasks=$SLURM_NNODES --cpus-per-task=$SLURM_CPUS_PER_TASK"
SPOOFKIT_GPU_CMD+=" --kill-on-bad-exit=1"
SPOOFKIT_TORCHRUN="--nnodes=$SLURM_NNODES --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID"
SPOOFKIT_TORCHRUN+=" --rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 10000))"
export SPOOFKIT_GPU_CMD SPOOFKIT_TORCHRUN

# Returns whether Slurm is preempting this job; otherwise PreemptTime is None.
is_preempted() { [[ $(scontrol show job "$SLURM_JOB_ID") == *PreemptTime=[0-9]* ]]; }

train_stage() { # train_stage N OPTIONS...
  local stage=$1 status is_told=false n_gpus=${SLURM_GPUS_ON_NODE:-1}
  shift
  trap 'is_told=true; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
  # A requeued job resumes, even if it was submitted with --overwrite.
  ./run.sh --device cuda --workers "$((SLURM_CPUS_PER_TASK / n_gpus))" "$@" --ngpu "$n_gpus" \
    ${SLURM_RESTART_COUNT:+--overwrite false} --stage "$stage" --stop-stage "$stage" &
  while true; do
    wait $! && status=0 || status=$?
    kill -0 $! 2>/dev/null || break  # otherwise the signal interrupted the wait
  done
  if ((status && ${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)) && { $is_told || is_preempted; }; then
    echo "job $SLURM_JOB_ID: its time is over or it is preempted; requeued to resume from the newest checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
