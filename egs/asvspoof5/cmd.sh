# Sourced by run.sh, here and in the recipes that link to this file: where the work runs. Empty means this machine; words
# before a command send it elsewhere.
#
# Slurm:
#   cpu_cmd="srun --cpus-per-task=16 --mem=16G --time=2:00:00"
#   gpu_cmd="srun --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=48:00:00"
#
# Several GPUs: write no torchrun here. With --ngpu 4 run.sh starts `python -m spoofkit.torchrun` once, behind gpu_cmd, and
# that starts four processes where gpu_cmd sent it. So gpu_cmd asks for one task with --gres=gpu:4 and four times the
# cores. Several machines: see egs/asvspoof5/slurm, whose jobs also resume by themselves.
cpu_cmd=   # stage 1: reads file headers
gpu_cmd=   # training, scores, frame scores
