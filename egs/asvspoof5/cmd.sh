# Sourced by run.sh: where the work runs. Empty: on this machine. Otherwise these words are put before each command, to
# run it elsewhere.
#
# Slurm:
#   cpu_cmd="srun --cpus-per-task=16 --mem=16G --time=2:00:00"
#   gpu_cmd="srun --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=48:00:00"
#
# Several GPUs: write no torchrun here. With --ngpu 4 run.sh starts `python -m spoofkit.torchrun` once, through gpu_cmd,
# and it starts four processes there. So gpu_cmd must request one task with --gres=gpu:4 and four times the cores.
# Several machines: see egs/asvspoof5/slurm, whose jobs also resume by themselves.
cpu_cmd=   # stage 1: reads file headers
gpu_cmd=   # training, scores, frame scores
