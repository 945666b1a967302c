# Sourced by submit.sh and by the jobs before anything else: refuses options that a job sets itself. Nothing to edit.
# shellcheck shell=bash
for option in "$@"; do
  case ${option%%=*} in
    --ngpu) hint="a job uses the GPUs that it asked Slurm for: change --gpus-per-node in slurm/" ;;
    --stage | --stop?stage) hint="each job runs its own stage: submit one alone with sbatch slurm/NAME.sh" ;;
    --timeline) hint="no job runs stage 7: start it with run.sh --stage 7, after report.sh" ;;
    --dry?run) hint="a job runs: check with run.sh" ;;
    *) continue ;;
  esac
  echo "$0: ${option%%=*} is none of the jobs' options; leave it out ($hint)" >&2
  exit 1
done
export SPOOFKIT_GPU_CMD=  # the work runs where Slurm put the job, whatever cmd.sh says
