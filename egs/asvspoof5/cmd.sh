# Sourced by run.sh, here and in the recipes that link to this file: where the work runs. Empty means this machine; words
# before a command send it elsewhere.
#
# Slurm:
#   cpu_cmd="srun --cpus-per-task=16 --mem=16G --time=2:00:00"
#   gpu_cmd="srun --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=48:00:00"
# With --ngpu 4 one command still starts: it starts the four processes where gpu_cmd sends it, so that asks for
# --gres=gpu:4 and four times the cores (or see slurm/ for jobs that resume by themselves).
cpu_cmd=   # stage 1: reads file headers
gpu_cmd=   # stages 3 to 5: training and scoring
