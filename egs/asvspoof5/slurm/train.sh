# Sourced by posttrain.sh and finetune.sh: a stage of run.sh on all GPUs of the job. There is nothing to edit here.
#
#   train_stage N OPTIONS...   runs stage N with these options of run.sh; requeues the job if its time was too short
#
# Five minutes before the end (--signal) the training is told to save and stop, and the job goes back into the queue;
# when it starts again, the same command resumes. That it was told decides, not exit code 75: where srun ends what is
# left on one machine after another has ended, its exit code is that of the signal. Slurm does not requeue a preempted
# job that has saved and ended within its grace time, so that is done here too. A job that fails or is cancelled is not
# requeued.
# shellcheck shell=bash
. slurm/job.sh

MAX_RESTARTS=100  # a job that gets nowhere between two ends does not try for ever
# Slurm signals what srun started, and that only; spoofkit.torchrun, one on each machine, passes the signal on. This
# script runs on the first machine of the job, where all of them meet.
SPOOFKIT_GPU_CMD="srun --nodes=$SLURM_NNODES --ntasks=$SLURM_NNODES --cpus-per-task=$SLURM_CPUS_PER_TASK"
SPOOFKIT_GPU_CMD+=" --kill-on-bad-exit=1"
SPOOFKIT_TORCHRUN="--nnodes=$SLURM_NNODES --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID"
SPOOFKIT_TORCHRUN+=" --rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 10000))"
export SPOOFKIT_GPU_CMD SPOOFKIT_TORCHRUN

# Whether Slurm is taking this job's machines for another; it says None where it is not.
is_preempted() { [[ $(scontrol show job "$SLURM_JOB_ID") == *PreemptTime=[0-9]* ]]; }

train_stage() { # train_stage N OPTIONS...
  local stage=$1 status is_told=false n_gpus=${SLURM_GPUS_ON_NODE:-1}
  shift
  trap 'is_told=true; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
  # A requeued job resumes, also where it was submitted with --overwrite.
  ./run.sh --device cuda --workers "$((SLURM_CPUS_PER_TASK / n_gpus))" "$@" --ngpu "$n_gpus" \
    ${SLURM_RESTART_COUNT:+--overwrite false} --stage "$stage" --stop-stage "$stage" &
  while true; do
    wait $! && status=0 || status=$?
    kill -0 $! 2>/dev/null || break  # else it was the signal that ended the wait
  done
  if ((status && ${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)) && { $is_told || is_preempted; }; then
    echo "job $SLURM_JOB_ID: its time is over or it is preempted; requeued, to resume from the newest checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
