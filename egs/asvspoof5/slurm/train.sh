# Sourced by posttrain.sh and finetune.sh: a stage of run.sh on all GPUs of the job. There is nothing to edit here.
#
#   train_stage N OPTIONS...   runs stage N with these options of run.sh; requeues the job if its time was too short
#
# Five minutes before the end (--signal) the training is told to save and stop, and the job goes back into the queue;
# when it starts again, the same command goes on. That it was told decides, not exit code 75, because torchrun exits
# with 1 whatever its processes say. Slurm does not requeue a preempted job that has saved and ended within its grace
# time, so that is done here too. A job that fails or is cancelled is not requeued.
# shellcheck shell=bash
. slurm/job.sh

MAX_RESTARTS=100  # a job that gets nowhere between two ends does not try for ever
RENDEZVOUS=$(hostname):$((20000 + SLURM_JOB_ID % 10000))  # this script runs on the first machine of the job
# So long torchrun waits for its processes after a signal: an evaluation, which they do not interrupt, is cut off then.
TORCH_ELASTIC_SHUTDOWN_TIMEOUT=180
export RENDEZVOUS TORCH_ELASTIC_SHUTDOWN_TIMEOUT

spoofkit() { # what run.sh calls by this name: the verb in a process for each GPU of the job
  # Slurm signals what srun started, and that only, so torchrun must pass the signal on.
  srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --rdzv-backend=c10d \
    --rdzv-endpoint="$RENDEZVOUS" --rdzv-id="$SLURM_JOB_ID" --signals-to-handle=SIGTERM,SIGINT,SIGUSR1 \
    -m spoofkit "$@"
}
export -f spoofkit

# Whether Slurm is taking this job's machines for another; it says None where it is not.
is_preempted() { [[ $(scontrol show job "$SLURM_JOB_ID") == *PreemptTime=[0-9]* ]]; }

train_stage() { # train_stage N OPTIONS...
  local stage=$1 status is_told=false
  shift
  trap 'is_told=true; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
  # A requeued job goes on, also where it was submitted to begin anew.
  ./run.sh --device cuda --workers "$((SLURM_CPUS_PER_TASK / ${SLURM_GPUS_ON_NODE:-1}))" "$@" \
    ${SLURM_RESTART_COUNT:+--overwrite false} --stage "$stage" --stop-stage "$stage" &
  while true; do
    wait $! && status=0 || status=$?
    kill -0 $! 2>/dev/null || break  # else it was the signal that ended the wait
  done
  if ((status && ${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)) && { $is_told || is_preempted; }; then
    echo "job $SLURM_JOB_ID: its time is over or it is preempted; requeued, to go on from the newest checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
