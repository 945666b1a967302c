# Sourced by the jobs before anything else. There is nothing to edit here.
# shellcheck shell=bash
case " $* " in *" --ngpu"*)
  echo "--ngpu: a job uses the GPUs that it asked Slurm for; leave it out, and change --gpus-per-node in slurm/" >&2
  exit 1
  ;;
esac
. ./cmd.sh
if [[ -n $gpu_cmd ]]; then
  echo "cmd.sh: gpu_cmd is '$gpu_cmd', but the work of this job must run where Slurm put it; make gpu_cmd empty" >&2
  exit 1
fi
