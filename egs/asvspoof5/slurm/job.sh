# Sourced first by submit.sh and by the jobs: refuses options that a job sets itself. Nothing to edit.
# shellcheck shell=bash
if [[ ${0##*/} != submit.sh && -z ${SLURM_JOB_ID-} ]]; then
  echo "$0: is a Slurm job; start it with: cd egs/asvspoof5; sbatch slurm/${0##*/}" >&2
  exit 1
fi
for option in "$@"; do
  case ${option%%=*} in
    --ngpu) hint="a job uses the GPUs that Slurm gives it: change --gpus-per-node in slurm/" ;;
    --stage | --stop?stage) hint="each job runs its own stage: submit one alone with sbatch slurm/NAME.sh" ;;
    --timeline) hint="no job runs stage 7: run it with run.sh --stage 7, after report.sh" ;;
    --dry?run) hint="check without submitting: run.sh --stage 3 --stop-stage 6 --dry-run" ;;
    *) continue ;;
  esac
  echo "$0: jobs do not take ${option%%=*}; omit it ($hint)" >&2
  exit 1
done
export SPOOFKIT_GPU_CMD=  # overrides cmd.sh: the work runs in the job itself
